"""One ledger of what is left out, for data sets, converters and data engines alike.

Nothing disappears without a count: every part of the data path notes causes in a ledger, which
also decides how many broken records are permitted before one of them is an error.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llmdet.errors import DataError

logger = logging.getLogger(__name__)

BROKEN = "broken record"
_LOGGED_RECORDS = 10
_SLOTS = 64  # data loader workers with a row of their own; more of them share rows


@dataclass(frozen=True)
class LedgerState:
    """What one process, or several together, have noted."""

    counts: Counter[str]  # by cause, without broken records
    broken: frozenset[int]  # keys of the broken records

    def totals(self) -> Counter[str]:
        """How often each cause occurred; a broken record counts once."""
        return self.counts + Counter({BROKEN: len(self.broken)})


class Ledger:
    """Counts causes, and skips broken records up to a limit.

    Args:
        max_bad_rows: broken records that are skipped before the first further one is raised. The
            same record counts once, however often it is met.
    """

    def __init__(self, max_bad_rows: int = 0) -> None:
        self.max_bad_rows = max_bad_rows
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._broken: set[int] = set()
        self._logged = 0

    def note(self, cause: str, where: str = "", number: int = 1) -> None:
        """Count `number` cases of a cause, the first of them met at `where`."""
        self._first.setdefault(cause, where)
        self._counts[cause] += number

    def reject(self, error: DataError, record: str = "") -> None:
        """Count a broken record, or raise its error where too many are broken.

        Args:
            error: what is wrong with it.
            record: by what it is recognised when it is met again; by the error's text if empty.
        """
        name = record or str(error)
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
        if key in self.state().broken:
            return
        self._remember(key)
        if len(self.state().broken) > self.max_bad_rows:
            if not self.max_bad_rows:
                raise error
            raise DataError(f"{error} (more than max_bad_rows={self.max_bad_rows})") from None
        self._first.setdefault(BROKEN, str(error))
        self._logged += 1
        if self._logged <= _LOGGED_RECORDS:
            logger.warning("skipped: %s", error)

    def _remember(self, key: int) -> None:
        self._broken.add(key)

    def state(self) -> LedgerState:
        """What has been noted so far."""
        return LedgerState(self._counts, frozenset(self._broken))

    @property
    def counts(self) -> Counter[str]:
        """How often each cause occurred, broken records among them."""
        return self.state().totals()

    def report(self) -> str:
        """One line per cause: how often and where first; empty if nothing happened."""
        return "\n".join(
            f"{count:>10,}  {cause}"
            + (f" (first: {self._first[cause]})" if self._first.get(cause) else "")
            for cause, count in self.counts.most_common()
        )


class SharedLedger(Ledger):
    """A ledger in shared memory: the main process sees what its data loader workers note.

    Args:
        *causes: what may be noted, in the words of the log.
        max_bad_rows: as of :class:`Ledger`, for all workers of a process together; over all ranks
            it is checked by :func:`check_permitted`.
        replicated: every rank notes the same, as it reads the same whole file at start-up, so
            that the total over ranks is that of one of them.
    """

    def __init__(self, *causes: str, max_bad_rows: int = 0, replicated: bool = False) -> None:
        import torch  # absent from the start-up of tools that only read files

        super().__init__(max_bad_rows)
        self.causes = causes
        self.replicated = replicated
        self._table = torch.zeros(_SLOTS, len(causes), dtype=torch.int64).share_memory_()
        # One list of keys for each worker, behind its length: no two processes write to one list.
        width = 2 + max_bad_rows
        self._keys = torch.zeros(_SLOTS, width, dtype=torch.int64).share_memory_()

    def note(self, cause: str, where: str = "", number: int = 1) -> None:
        """Count `number` cases of a cause; places are not kept."""
        self._table[_slot(), self.causes.index(cause)] += number

    def _remember(self, key: int) -> None:
        keys = self._keys[_slot()]
        used = int(keys[0])
        if used + 1 < len(keys):  # else the limit was passed long ago
            keys[used + 1] = key
            keys[0] = used + 1

    def state(self) -> LedgerState:
        """What this process and its data loader workers have noted so far."""
        numbers = zip(self.causes, self._table.sum(0).tolist(), strict=True)
        keys = (key for row in self._keys for key in row[1 : 1 + int(row[0])].tolist())
        return LedgerState(Counter({c: n for c, n in numbers if n}), frozenset(keys))


def _slot() -> int:
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    return 0 if worker is None else 1 + worker.id % (_SLOTS - 1)


def ledgers_of(dataset: Any) -> Iterator[SharedLedger]:
    """The ledgers of a data set, of those it wraps, and of their transforms: their ``dropped``.

    Args:
        dataset: any data set; those of `ConcatDataset` and wrappers with a `dataset` are followed.
    """
    for inner in (*getattr(dataset, "datasets", ()), getattr(dataset, "dataset", None)):
        if inner is not None:
            yield from ledgers_of(inner)
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    for owner in (dataset, *transforms):
        ledger = getattr(owner, "dropped", None)
        if isinstance(ledger, SharedLedger):
            yield ledger


def dropped_totals(dataset: Any) -> Counter[str]:
    """What a data set and its transforms left out in this process and its workers, by cause."""
    return sum((ledger.counts for ledger in ledgers_of(dataset)), Counter())


def over_ranks(ledger: SharedLedger, states: Iterable[LedgerState]) -> LedgerState:
    """One state of the same ledger's states on all ranks."""
    states = list(states)
    counts = [states[0].counts] if ledger.replicated else [state.counts for state in states]
    return LedgerState(
        sum(counts, Counter()), frozenset().union(*(state.broken for state in states))
    )


def check_permitted(ledger: SharedLedger, state: LedgerState) -> None:
    """Refuse more broken records on all ranks together than the ledger permits.

    Raises:
        DataError: there are more.
    """
    if len(state.broken) > ledger.max_bad_rows:
        raise DataError(
            f"{len(state.broken)} different records of the training data are broken on all ranks "
            f"together, and max_bad_rows={ledger.max_bad_rows}; the warnings above name them. "
            "Repair them (tools/convert/data.py --check lists all) or raise max_bad_rows."
        )
