"""Short answers, compared with those of rows of conversations."""

from collections.abc import Mapping
from typing import Any

from llmdet.errors import DataError

_YES_OR_NO = frozenset({"yes", "no"})


def answer_scores(wanted: Mapping[int, str], answers: Mapping[int, str]) -> dict[str, Any]:
    """The share of answers that are the wanted ones, whatever their case and last full stop.

    Args:
        wanted: by question.
        answers: by question; one that is missing is wrong.

    Returns:
        ``accuracy``, the number of ``questions`` and, where yes or no answers each of them,
        ``yes_ratio``, the share of answers that are yes.

    Raises:
        DataError: there is no question.
    """
    if not wanted:
        raise DataError("there are no questions")
    right = {identity: _plain(text) for identity, text in wanted.items()}
    said = {identity: _plain(answers.get(identity, "")) for identity in right}
    same = sum(said[identity] == text for identity, text in right.items())
    values: dict[str, Any] = {"accuracy": same / len(right), "questions": len(right)}
    if set(right.values()) <= _YES_OR_NO:
        values["yes_ratio"] = sum(text == "yes" for text in said.values()) / len(said)
    return values


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").lower()
