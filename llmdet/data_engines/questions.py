"""Questions whose answers must be accepted: what is rejected is asked again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmdet.chat import ChatRequest
from llmdet.data_engines.flow import Call

#: An answer that was not accepted is asked for again at this temperature, or it would come again.
RETRY_TEMPERATURE = 0.7


class RejectedAnswerError(Exception):
    """What is wrong with an answer, in the words of the ledger."""


@dataclass(frozen=True)
class Question:
    """A question whose answer must be accepted.

    Attributes:
        role: who is asked.
        request: what is asked first.
        read: takes an answer and returns what is made of it, or raises a
            :class:`RejectedAnswerError`.
        kind: what is asked for, in the words of the ledger.
    """

    role: str
    request: ChatRequest
    read: Callable[[str], Any]
    kind: str


@dataclass(frozen=True)
class Reply:
    """What became of a question."""

    value: Any  # what was read from the accepted answer, None without one
    fault: str = ""  # why the last answer was not accepted, with the kind of the question


def accepted_replies(
    questions: Sequence[Question], attempts: int
) -> Generator[list[Call], list[Any], list[Reply]]:
    """The part of a program that asks questions until their answers are accepted.

    Questions of one call are asked together. Later attempts sample, each with another seed.

    Args:
        questions: what to ask.
        attempts: how often each is asked at most.

    Returns:
        One reply for each question, by ``yield from``.
    """
    replies = [Reply(None) for _ in questions]
    waiting = list(range(len(questions)))
    for attempt in range(attempts):
        calls = [Call(questions[i].role, _attempt(questions[i].request, attempt)) for i in waiting]
        for i, answer in zip(waiting, (yield calls), strict=True):
            try:
                replies[i] = Reply(questions[i].read(answer))
            except RejectedAnswerError as error:
                replies[i] = Reply(None, f"{questions[i].kind} {error}")
        waiting = [i for i in waiting if replies[i].fault]
        if not waiting:
            break
    return replies


def _attempt(request: ChatRequest, attempt: int) -> ChatRequest:
    if not attempt:
        return request
    temperature = request.temperature or RETRY_TEMPERATURE
    return replace(request, temperature=temperature, seed=request.seed + attempt)


def left_out(replies: Sequence[Reply], where: str) -> tuple[tuple[str, str], ...]:
    """Notes for the ledger: what is left out because no answer was accepted."""
    return tuple((f"{reply.fault}, left out", where) for reply in replies if reply.fault)
