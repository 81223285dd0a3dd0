"""Short answers, compared with those of rows of conversations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from llmdet.errors import DataError

_YES_OR_NO = frozenset({"yes", "no"})


def answer_scores(
    wanted: Mapping[int, str],
    answers: Mapping[int, str],
    tasks: Mapping[int, str | None] | None = None,
) -> dict[str, Any]:
    """The share of answers that are the wanted ones, whatever their case and last full stop.

    Args:
        wanted: by question.
        answers: by question; one that is missing is wrong.
        tasks: what each question asks, where that is known.

    Returns:
        ``accuracy``; the number of ``questions``; ``yes_ratio``, the share of yes among the answers
        to questions whose answer is yes or no, where there are such; ``task``: accuracy of each.

    Raises:
        DataError: there is no question.
    """
    if not wanted:
        raise DataError("there are no questions")
    right = {identity: _plain(text) for identity, text in wanted.items()}
    said = {identity: _plain(answers.get(identity, "")) for identity in right}
    same = {identity: said[identity] == text for identity, text in right.items()}
    values: dict[str, Any] = {"accuracy": _share(same.values()), "questions": len(right)}
    closed = [identity for identity, text in right.items() if text in _YES_OR_NO]
    if closed:
        values["yes_ratio"] = _share(said[identity] == "yes" for identity in closed)
    of_task: dict[str, list[bool]] = defaultdict(list)
    for identity, task in (tasks or {}).items():
        if task is not None:
            of_task[task].append(same[identity])
    if of_task:
        values["task"] = {task: _share(found) for task, found in sorted(of_task.items())}
    return values


def _share(found: Iterable[bool]) -> float:
    listed = list(found)
    return sum(listed) / len(listed)


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").lower()
