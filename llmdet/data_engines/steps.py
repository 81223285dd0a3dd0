"""Run an engine over items: in batches or at the same time, resumable, nothing lost."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from llmdet.chat import ChatModel, ChatRequest
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

#: An answer that was not accepted is asked for again at this temperature, or it would come again.
RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Pace:
    """How items go through a step; it does not decide what comes out.

    Attributes:
        batch_size: items of one call of the engine; larger for a model in this process.
        workers: calls under way at a time; more for an endpoint.
    """

    batch_size: int = 8
    workers: int = 1


def run_step(
    items: Iterable[Item],
    process: Callable[[Sequence[Item]], Sequence[Outcome]],
    journal: Journal,
    ledger: Ledger,
    pace: Pace,
    written: Callable[[int], object] = lambda count: None,
) -> None:
    """Process the items that the journal does not hold yet, and append them in their order.

    Args:
        items: all items, in the same order in every run.
        process: the engine: one outcome for each item. With several workers it runs in threads.
        journal: gets the outcomes.
        ledger: counts broken items, those of earlier runs among them.
        pace: batch size and workers.
        written: called with the number of items that have reached the disk, for a progress bar.

    Raises:
        DataError: more items are broken than the ledger permits. What was finished before the
            one too many stays in the journal.
    """
    journal.reject_problems(ledger)
    start, done_before = time.monotonic(), journal.done
    stream = islice(iter(items), journal.done, None)
    waiting: deque[Future[Sequence[Outcome]]] = deque()

    def write_first() -> None:
        kept: list[Outcome] = []
        try:
            for outcome in waiting.popleft().result():
                if outcome.row is None:
                    ledger.reject(DataError(outcome.problem))
                kept.append(outcome)
        finally:
            journal.append(kept)
            written(len(kept))

    with ThreadPoolExecutor(pace.workers) as pool:
        try:
            while batch := list(islice(stream, pace.batch_size)):
                waiting.append(pool.submit(process, batch))
                if len(waiting) >= pace.workers:
                    write_first()
            while waiting:
                write_first()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    count, seconds = journal.done - done_before, time.monotonic() - start
    logger.info("%d items in %.0f s, %.2f a second", count, seconds, count / max(seconds, 1e-9))


@dataclass
class Question:
    """A question whose answer must be accepted.

    Attributes:
        request: makes the request at a temperature.
        accept: takes an answer and returns what is wrong with it, None if nothing is.
        kind: what is asked for, in the words of the log.
        fault: what was wrong with the last answer; empty once one is accepted.
    """

    request: Callable[[float], ChatRequest]
    accept: Callable[[str], str | None]
    kind: str
    fault: str = ""


def ask_until_accepted(
    questions: Sequence[Question], chat: ChatModel, attempts: int, batch_size: int
) -> None:
    """Ask every question until its answer is accepted or the attempts are used up."""
    waiting: list[Question] = list(questions)
    for attempt in range(attempts):
        temperature = RETRY_TEMPERATURE if attempt else 0.0
        for start in range(0, len(waiting), batch_size):
            group = waiting[start : start + batch_size]
            answers = chat.answer([question.request(temperature) for question in group])
            for question, answer in zip(group, answers, strict=True):
                question.fault = question.accept(answer) or ""
        waiting = [question for question in waiting if question.fault]


def faults(questions: Sequence[Question], where: str) -> tuple[tuple[str, str], ...]:
    """Notes for the ledger: what is left out because no answer was accepted."""
    return tuple((f"{q.kind} {q.fault}, left out", where) for q in questions if q.fault)
