"""GranD from level to level: each is a file, and the last one becomes a JSON for each picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from llmdet.chat import ChatModel
from llmdet.data_engines.detections import BoxSource
from llmdet.data_engines.flow import Model, Shard, Steps, identities
from llmdet.data_engines.grand.models import DepthOrder, SamMasks
from llmdet.data_engines.grand.objects import ObjectProgram, box_roles
from llmdet.data_engines.grand.settings import (
    BOXES,
    CAPTIONER,
    DEPTH,
    DESCRIBER,
    MASKS,
    RELATER,
    ROLES,
    WRITER,
    GrandSettings,
)
from llmdet.data_engines.grand.texts import CaptionProgram, ContextProgram, DescriptionProgram
from llmdet.data_engines.identities import hash_of_files
from llmdet.data_engines.journal import Journal, check_same
from llmdet.data_engines.pictures import PictureSet
from llmdet.data_engines.runs import WHOLE, Run, by_name
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError
from llmdet.prompts.noun_phrases import choose_method
from llmdet.utils.whole_files import whole_file

#: Counted up whenever the same answers would give other records, by level.
VERSIONS = {1: 1, 2: 1, 3: 1, 4: 1}
ANNOTATIONS = "annotations"
_REMEDY = "Repeat the command that began it, remove this level's files, or name another folder."
#: Level -> field of a record -> the role that it is from.
PROVENANCE = {
    1: {
        "tags": CAPTIONER,
        "landmark": CAPTIONER,
        "objects.bbox": BOXES,
        "objects.labels": BOXES,
        "objects.score": BOXES,
        "objects.segmentation": MASKS,
        "objects.attributes": DESCRIBER,
        "objects.depth": DEPTH,
    },
    2: {
        "short_captions.caption": CAPTIONER,
        "short_captions.details": BOXES,
        "relationships": RELATER,
    },
    3: {
        "dense_caption.caption": WRITER,
        "dense_caption.details": BOXES,
        "removed_phrases": BOXES,
    },
    4: {"additional_context": WRITER, "affordances": WRITER},
}

Record = dict[str, Any]


@dataclass(frozen=True)
class GrandModels:
    """What looks and speaks.

    Attributes:
        chats: role -> language model, see :func:`~.settings.roles_up_to`.
        boxes: detectors; the first also looks for what captions name.
        masks: makes masks of boxes; None leaves them out.
        depth: measures how far away objects are; None leaves it out.

    Raises:
        ConfigError: there is no detector.
    """

    chats: Mapping[str, ChatModel]
    boxes: Sequence[BoxSource]
    masks: SamMasks | None = None
    depth: DepthOrder | None = None

    def __post_init__(self) -> None:
        if not self.boxes:
            raise ConfigError("GranD needs at least one detector")

    def of(self, level: int) -> dict[str, Any]:
        """Role -> model of a level."""
        asked: dict[str, Any] = {role: self.chats[role] for role in ROLES[level]}
        if level == 1:
            asked |= dict(zip(box_roles(len(self.boxes)), self.boxes, strict=True))
            asked |= {} if self.masks is None else {MASKS: self.masks}
            asked |= {} if self.depth is None else {DEPTH: self.depth}
        elif level < 4:
            asked[BOXES] = self.boxes[0]
        return asked


@dataclass(frozen=True)
class _Level:
    """A level of a folder."""

    number: int
    folder: Path

    @property
    def records(self) -> Path:
        return self.folder / f"level_{self.number}.jsonl"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.records.name}.partial"

    @property
    def settings(self) -> Path:
        return self.folder / f"level_{self.number}.settings.json"

    def begin(self, decided: Mapping[str, Any]) -> None:
        """Remember what decides the level, or refuse what was begun with something else."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.settings.exists():
            now = orjson.loads(orjson.dumps(decided))
            check_same(self.settings, self.settings.read_bytes(), now, _REMEDY)
            return
        if self.records.exists():
            raise ConfigError(f"{self.records} is there without {self.settings.name}. {_REMEDY}")
        with whole_file(self.settings) as file:
            file.write(orjson.dumps({"decided_by": decided}, option=orjson.OPT_APPEND_NEWLINE))

    def read(self) -> Iterator[Record]:
        with self.records.open("rb") as file:
            yield from map(orjson.loads, file)

    def count(self) -> int:
        with self.records.open("rb") as file:
            return sum(1 for _ in file)


def make_grand(
    pictures: PictureSet,
    folder: Path,
    models: GrandModels,
    settings: GrandSettings,
    *,
    up_to: int = 4,
    max_bad_rows: int = 0,
    run: Run = WHOLE,
    told: Callable[[str, int, Ledger], object] = lambda name, count, ledger: None,
) -> int:
    """Make a folder with the records of each level, and a JSON for each picture.

    Killed and called again with the same arguments, it goes on: in the middle of a level, or after
    the last one that is over.

    Args:
        pictures: what to look at.
        folder: for all files.
        models: what looks and speaks.
        settings: all the rest that decides what is written.
        up_to: the last level.
        max_bad_rows: broken pictures that are skipped, of each level.
        run: how pictures go through, and which.
        told: called with the file of a level that was made here, the number of its records and
            what was left out; at last with the folder of the JSON files.

    Returns:
        The number of pictures that have a JSON.

    Raises:
        ConfigError: a level was begun with something else, which is named; or more detectors are to
            agree than there are.
        DataError: a picture is broken and no more of them are permitted, or two of them would
            share a JSON.
    """
    _check_agreement(settings, models)
    pictures.check_stems()
    levels = [_Level(number, folder) for number in range(1, up_to + 1)]
    for level, below in zip(levels, [None, *levels], strict=False):
        decided = _decided_by(pictures, models, settings, run.shard, level, below)
        level.begin(decided)
        if level.records.exists():
            continue
        ledger = Ledger(max_bad_rows)
        journal = Journal(level.partial, decided, _REMEDY)
        program = _program(level.number, pictures.folder, models, settings)
        asked: dict[str, Model] = models.of(level.number)
        if below is None:
            names = pictures.filenames
            run.take(names, len(names), program, asked, journal, ledger)
        else:  # which has the shard alone
            rest = replace(run, shard=Shard())
            rest.take(below.read(), below.count(), program, asked, journal, ledger)
        rows_of = partial(with_provenance, sources=_provenance(level.number, models))
        count = journal.finish(level.records, ledger, rows_of=rows_of)
        told(str(level.records), count, ledger)
    count = write_annotations(levels[-1].read(), folder / ANNOTATIONS)
    told(str(folder / ANNOTATIONS), count, Ledger())
    return count


def _check_agreement(settings: GrandSettings, models: GrandModels) -> None:
    if settings.objects.agree > len(models.boxes):
        raise ConfigError(
            f"no object can be found by {settings.objects.agree} detectors, as agree asks for: "
            f"there are {len(models.boxes)}"
        )


def _program(
    level: int, folder: Path, models: GrandModels, settings: GrandSettings
) -> Callable[[Any], Steps]:
    if level == 1:
        has_masks, has_depth = models.masks is not None, models.depth is not None
        return ObjectProgram(folder, settings.objects, len(models.boxes), has_masks, has_depth)
    if level == 2:
        return CaptionProgram(folder, settings.captions)
    if level == 3:
        return DescriptionProgram(folder, settings.description)
    return ContextProgram(settings.context)


def _decided_by(
    pictures: PictureSet,
    models: GrandModels,
    settings: GrandSettings,
    shard: Shard,
    level: _Level,
    below: _Level | None,
) -> dict[str, Any]:
    """All on which a level depends; what the level below depends on is in its file."""
    decided = {
        f"level {level.number} of the grand engine": VERSIONS[level.number],
        "folder of the pictures": str(pictures.folder),
        "noun phrases": choose_method("auto"),
        **identities(models.of(level.number)),
        **by_name(settings.of(level.number)),
    }
    if below is None:
        return decided | {"pictures": pictures.identity, "shard": str(shard)}
    return decided | {f"level {below.number}": hash_of_files(below.records)}


def _provenance(level: int, models: GrandModels) -> dict[str, dict[str, Any]]:
    """Field -> level, role, version and model that it is from."""
    asked = models.of(level)
    return {
        name: {"level": level, "version": VERSIONS[level], "by": role, **asked[role].identity}
        for name, role in PROVENANCE[level].items()
        if role in asked
    }


def with_provenance(record: Record, sources: Mapping[str, Mapping[str, Any]]) -> tuple[Record, ...]:
    """A record that says where the fields that it has are from."""
    own = {name: source for name, source in sources.items() if name.partition(".")[0] in record}
    return (record | {"provenance": {**record.get("provenance", {}), **own}},)


def write_annotations(records: Iterable[Record], folder: Path) -> int:
    """Write a JSON for each picture, ``{"a.jpg": {...}}``; returns their number."""
    count = 0
    for record in records:
        place = folder / PurePosixPath(record["file_name"]).with_suffix(".json")
        place.parent.mkdir(parents=True, exist_ok=True)
        name = PurePosixPath(record["file_name"]).name
        with whole_file(place) as file:
            file.write(orjson.dumps({name: record}, option=orjson.OPT_APPEND_NEWLINE))
        count += 1
    return count
