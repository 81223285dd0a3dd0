"""One run of an engine: how its items go through, and where they are kept until all are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmdet.data_engines.flow import Item, Model, Progress, Shard, Steps, run_flow, silent
from llmdet.data_engines.journal import Journal
from llmdet.datasets.ledger import Ledger


@dataclass(frozen=True)
class Run:
    """How items go through; of what comes out it decides no more than the part.

    Attributes:
        in_flight: items that are begun and not finished, at most.
        shard: the part of the items that is to be done; all by default.
        progress: shows how far it is.
    """

    in_flight: int = 32
    shard: Shard = field(default_factory=Shard)
    progress: Progress = silent

    def take(
        self,
        items: Iterable[Item],
        total: int | None,
        program: Callable[[Item], Steps],
        models: Mapping[str, Model],
        journal: Journal,
        ledger: Ledger,
    ) -> None:
        """Take items through a program, see :func:`~llmdet.data_engines.flow.run_flow`.

        Args:
            items: all items, in the same order in every run.
            total: their number where it is known.
            program: what becomes of an item.
            models: role -> model.
            journal: gets the outcomes.
            ledger: counts broken items.

        Raises:
            DataError: more items are broken than the ledger permits.
        """
        run_flow(
            items,
            program,
            models,
            journal,
            ledger,
            in_flight=self.in_flight,
            shard=self.shard,
            finished=self.progress(journal.done, self.shard.size(total)),
        )


#: All items, and nothing is shown.
WHOLE = Run()


def journal_of(out: Path, decided_by: Mapping[str, Any]) -> Journal:
    """The journal of a file that is being made: ``OUT.partial``.

    Raises:
        ConfigError: it was begun with something else, which is named.
    """
    return Journal(out.with_name(f"{out.name}.partial"), decided_by)


def by_name(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass of settings under names that a sentence can show."""
    return {name.replace("_", " "): value for name, value in asdict(settings).items()}
