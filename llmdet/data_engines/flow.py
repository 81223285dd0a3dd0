"""Items go through models: all of them in flight together, resumable, nothing lost.

What becomes of an item is a *program*, a generator function that knows no model, batch or thread:

    def program(item):
        short, long = yield [Call("captioner", request), Call("captioner", another)]
        (feedback,) = yield [Call("reviewer", about(short, long))]
        return Outcome({"caption": long})

:func:`run_flow` advances the programs of many items and hands their calls to the models: in batches
to one in this process, many at a time to an endpoint (:class:`~llmdet.chat.Pace`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from llmdet.chat import ChatModel, Pace
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError, LLMDetError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Call:
    """One request to the model that has a role."""

    role: str
    request: Any


#: What a program does: yields calls, is sent their answers in the same order, returns the outcome.
Steps = Generator[Sequence[Call], list[Any], Outcome]


class Model(Protocol):
    """Whatever answers requests: a language model, a detector, one that compares pictures."""

    @property
    def pace(self) -> Pace:
        """How many requests it takes at a time."""

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """One answer for each request, in their order; may be called from several threads."""


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th item, from the one with number ``index`` on.

    Raises:
        ConfigError: the index is not below the count.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"shard {self}: the first number goes from 0 to one below the "
                "second, which is the number of shards"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def size(self, total: int | None) -> int | None:
        """How many of ``total`` items it holds."""
        return None if total is None else len(range(self.index, total, self.count))


#: Given the numbers of items that are finished and, where it is known, of all; returns what is
#: called with the outcomes of further ones.
Progress = Callable[[int, int | None], Callable[[Sequence[Outcome]], object]]


def silent(done: int, total: int | None) -> Callable[[Sequence[Outcome]], object]:
    """Progress that nobody sees."""
    return len


def identities(models: Mapping[str, ChatModel]) -> dict[str, Any]:
    """What decides the answers of all models, for a journal; keys begin with the role."""
    return {
        f"{role} {key}": value
        for role, model in models.items()
        for key, value in model.identity.items()
    }


def run_flow(
    items: Iterable[Item],
    program: Callable[[Item], Steps],
    models: Mapping[str, Model],
    journal: Journal,
    ledger: Ledger,
    *,
    in_flight: int = 32,
    shard: Shard | None = None,
    finished: Callable[[Sequence[Outcome]], object] = len,
) -> None:
    """Take the items that the journal does not hold yet through a program, and append outcomes.

    What comes out does not depend on ``in_flight`` nor on the pace of the models. When the process
    is killed, finished items are in the journal, and those in flight are begun again.

    Args:
        items: all items, in the same order in every run.
        program: what becomes of an item. It runs in the thread of the caller. Where it raises a
            DataError, the item is broken.
        models: role -> model; a model that has several roles gets the calls of all of them.
        journal: gets the outcomes.
        ledger: counts broken items, those of earlier runs among them.
        in_flight: items that are begun and not finished, at most.
        shard: the part of the items that is to be done here; all by default.
        finished: called with the outcomes that have reached the disk, for a progress bar.

    Raises:
        ConfigError: a program asks for a role that no model has.
        DataError: more items are broken than the ledger permits. Items in flight are finished
            first; the one too many does not enter the journal.
        LLMDetError: a model fails. Items in flight are lost.
    """
    journal.reject_problems(ledger)
    begin, done_before = time.monotonic(), journal.done
    with _Lanes(models) as lanes:
        flow = _Flow(_missing_items(items, journal, shard or Shard()), program, lanes)
        for outcomes in flow.run(in_flight, ledger):
            journal.append(outcomes)
            finished([outcome for _, outcome in outcomes])
    if flow.stopped_by is not None:
        raise flow.stopped_by
    count, seconds = journal.done - done_before, time.monotonic() - begin
    logger.info("%d items in %.0f s, %.2f a second", count, seconds, count / max(seconds, 1e-9))


def _missing_items(
    items: Iterable[Item], journal: Journal, shard: Shard
) -> Iterator[tuple[int, Item]]:
    for number, item in enumerate(items):
        if number % shard.count == shard.index and not journal.holds(number):
            yield number, item


@dataclass
class _Task:
    """An item on its way: its program, and the answers of the step that it waits for."""

    number: int
    steps: Steps
    answers: list[Any] = field(default_factory=list)
    missing: int = 0


class _Flow:
    """Programs of the items in flight; ``stopped_by`` says why no more of them were begun."""

    def __init__(
        self,
        items: Iterator[tuple[int, Item]],
        program: Callable[[Item], Steps],
        lanes: _Lanes,
    ) -> None:
        self.items, self.program, self.lanes = items, program, lanes
        self.tasks = 0
        self.stopped_by: LLMDetError | None = None

    def run(self, in_flight: int, ledger: Ledger) -> Iterator[list[tuple[int, Outcome]]]:
        """Finished items, in groups, as they come."""
        while True:
            while self.tasks < in_flight and (task := self._next_task()):
                self.tasks += 1
                if finished := self._permitted(self._advance([(task, None)]), ledger):
                    yield finished
            self.lanes.dispatch()
            if not self.tasks:
                return
            ready = [(task, task.answers) for task in self.lanes.ready_tasks()]
            if finished := self._permitted(self._advance(ready), ledger):
                yield finished
            if self.lanes.failure is not None:  # after what was answered before it is safe
                raise self.lanes.failure

    def _next_task(self) -> _Task | None:
        if self.stopped_by is not None:
            return None
        try:
            numbered = next(self.items, None)
        except LLMDetError as error:  # of the reader: what is in flight must not be lost by it
            self.stopped_by = error
            return None
        return None if numbered is None else _Task(numbered[0], self.program(numbered[1]))

    def _advance(
        self, ready: Iterable[tuple[_Task, list[Any] | None]]
    ) -> list[tuple[int, Outcome]]:
        """Run each program up to its next calls; returns those that came to their end."""
        finished = []
        for task, answers in ready:
            try:
                calls = task.steps.send(answers)  # type: ignore[arg-type]  # None begins it
                while not calls:
                    calls = task.steps.send([])
            except StopIteration as end:
                self.tasks -= 1
                finished.append((task.number, end.value))
            except DataError as error:  # its picture, its record: nothing that a model has done
                self.tasks -= 1
                finished.append((task.number, Outcome(None, problem=str(error))))
            else:
                self.lanes.put(task, calls)
        return finished

    def _permitted(
        self, finished: list[tuple[int, Outcome]], ledger: Ledger
    ) -> list[tuple[int, Outcome]]:
        """All finished items but the broken one too many, after which no other is begun."""
        kept = []
        for number, outcome in finished:
            try:
                if outcome.problem:
                    ledger.reject(DataError(outcome.problem))
            except DataError as error:
                self.stopped_by = self.stopped_by or error
            else:
                kept.append((number, outcome))
        return kept


#: A call that waits: whose it is, its place among the calls of that step, and the request.
_Waiting = tuple[_Task, int, Any]
#: What a thread reports: the lane, what it was given, and the answers or what went wrong.
_Report = tuple["_Lane", list[_Waiting], "list[Any] | BaseException"]


class _Lane:
    """The calls of one model, and the threads that hand them over.

    Threads are daemons: an interrupted program does not wait for answers that nobody will read.
    """

    def __init__(self, model: Model, reports: SimpleQueue[_Report]) -> None:
        self.model, self.reports = model, reports
        self.waiting: deque[_Waiting] = deque()
        self.busy = self.threads = 0
        self.batches: SimpleQueue[list[_Waiting] | None] = SimpleQueue()

    def dispatch(self, least: int) -> None:
        """Hand over batches of at least so many calls while the model takes any."""
        pace = self.model.pace
        while self.busy < pace.concurrency and len(self.waiting) >= max(least, 1):
            size = min(pace.batch_size, len(self.waiting))
            self.busy += 1
            if self.busy > self.threads:
                self.threads += 1
                threading.Thread(target=self._work, daemon=True).start()
            self.batches.put([self.waiting.popleft() for _ in range(size)])

    def _work(self) -> None:
        while (batch := self.batches.get()) is not None:
            try:
                answers = self.model.answer([request for *_, request in batch])
                self.reports.put((self, batch, answers))
            except BaseException as error:
                self.reports.put((self, batch, error))

    def close(self) -> None:
        """Let the threads end, each after the call that it is in."""
        for _ in range(self.threads):
            self.batches.put(None)


class _Lanes:
    """One lane for each model, by the roles that it has."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.reports: SimpleQueue[_Report] = SimpleQueue()
        lanes = {id(model): _Lane(model, self.reports) for model in models.values()}
        self.by_role = {role: lanes[id(model)] for role, model in models.items()}
        self.lanes = list(lanes.values())
        self.failure: BaseException | None = None  # what went wrong first in a model

    def __enter__(self) -> _Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self.lanes:
            lane.close()

    def put(self, task: _Task, calls: Sequence[Call]) -> None:
        """Line up the calls of a task; batches that are full go at once."""
        task.answers, task.missing = [None] * len(calls), len(calls)
        for place, call in enumerate(calls):
            try:
                lane = self.by_role[call.role]
            except KeyError:
                raise ConfigError(
                    f"no model has the role {call.role!r}; there are {sorted(self.by_role)}"
                ) from None
            lane.waiting.append((task, place, call.request))
            lane.dispatch(lane.model.pace.batch_size)

    def dispatch(self) -> None:
        """Hand over what waits, full batch or not: nothing can be added to it now."""
        for lane in self.lanes:
            lane.dispatch(1)

    def ready_tasks(self) -> list[_Task]:
        """Wait for answers; returns the tasks that now have all that they asked for."""
        ready = self._take(self.reports.get())
        while True:
            try:
                ready += self._take(self.reports.get_nowait())
            except Empty:
                return ready

    def _take(self, report: _Report) -> list[_Task]:
        lane, batch, answers = report
        lane.busy -= 1
        if isinstance(answers, BaseException):
            self.failure = self.failure or answers
            return []
        lane.dispatch(lane.model.pace.batch_size)
        ready = []
        for (task, place, _), answer in zip(batch, answers, strict=True):
            task.answers[place] = answer
            task.missing -= 1
            if not task.missing:
                ready.append(task)
        return ready
