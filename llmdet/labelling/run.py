"""One labelling from beginning to end, or from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmdet.data_engines.flow import Call, Model, Steps, run_flow
from llmdet.data_engines.journal import Journal
from llmdet.data_engines.pictures import PictureSet
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError
from llmdet.labelling.output import (
    Labels,
    annotation_hash,
    place_pictures,
    write_annotations,
)
from llmdet.labelling.review import LabelReport, summarize, write_doubtful, write_sheet
from llmdet.labelling.settings import LabelSettings, OutputSettings, decided_by

JOURNAL = "journal.jsonl"
_LOCK = ".lock"
_ROLE = "labeller"
_REMEDY = "Repeat the command that began it, or name another folder."

#: Given the number of finished pictures and of all, returns what is called with each new number.
Progress = Callable[[int, int], Callable[[int], object]]


def label_picture(filename: str) -> Steps:
    """What becomes of a picture: whatever the engine says about it."""
    (outcome,) = yield [Call(_ROLE, filename)]
    return outcome


@dataclass(frozen=True)
class LabelJob:
    """Pictures to be labelled, and where.

    Attributes:
        pictures: what to label.
        settings: what to look for.
        output: how it is written.
        out: a folder of its own.
    """

    pictures: PictureSet
    settings: LabelSettings
    output: OutputSettings
    out: Path

    def check(self) -> None:
        """Raise a ConfigError or DataError for what would fail at the end."""
        self.output.check(self.settings)
        if self.output.target in ("yolo", "voc"):
            self.pictures.check_stems()

    @contextmanager
    def journal(self, config: Any, weights: str | Path | None) -> Iterator[Journal]:
        """What is finished; no other process labels into the folder meanwhile.

        Args:
            config: of the model.
            weights: of the model.

        Raises:
            ConfigError: the folder holds other things, was begun with other settings (the
                sentence names them), or is being written.
        """
        self.check()
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{self.out} is a file: name a folder for the labels.")
        path = self.out / JOURNAL
        if self.out.exists() and not path.exists() and set(self._others()):
            raise ConfigError(
                f"{self.out} holds files that are no labelling: name a folder that is new or empty."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        with self.alone():
            decided = decided_by(config, weights, self.pictures, self.settings, self.output)
            yield Journal(path, decided, _REMEDY)

    def _others(self) -> Iterator[Path]:
        return (file for file in self.out.iterdir() if file.name != _LOCK)

    def run(
        self,
        engine: Model,
        journal: Journal,
        progress: Progress | None = None,
    ) -> LabelReport:
        """Label what the journal does not hold yet, and write the data set.

        Pictures that cannot be read are counted and cost the others nothing. A process that is
        killed leaves its finished pictures in the journal.

        Args:
            engine: a :class:`~llmdet.labelling.engine.LabelEngine`.
            journal: from :meth:`journal`.
            progress: shows how far it is.

        Raises:
            DataError: pictures can be neither linked nor copied.
        """
        names = self.pictures.filenames
        written = progress(journal.done, len(names)) if progress else lambda count: None
        ledger = Ledger(max_bad_rows=len(names))
        run_flow(
            names,
            label_picture,
            {_ROLE: engine},
            journal,
            ledger,
            in_flight=engine.pace.batch_size,
            finished=lambda outcomes: written(len(outcomes)),
        )
        labels = Labels(journal)
        place_pictures(labels, self.pictures, self.output, self.out)
        write_doubtful(labels, self.pictures, self.settings, self.out)
        return self.write(labels)

    def write(self, labels: Labels) -> LabelReport:
        """Write annotations, the page of pictures and the report; the last says it is finished."""
        splits = write_annotations(labels, self.settings, self.output, self.out)
        write_sheet(labels, self.pictures, self.settings, self.out)
        written = annotation_hash(self.out, self.output.target)
        report = summarize(labels, self.settings, splits, written)
        report.write(self.out)
        return report

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from labelling into the folder.

        Raises:
            ConfigError: one is at it.
        """
        try:
            with FileLock(self.out / _LOCK, timeout=0):
                yield
        except Timeout:
            raise ConfigError(f"Another process is labelling into {self.out}.") from None
