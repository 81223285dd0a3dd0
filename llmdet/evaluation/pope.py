"""POPE: does a language model see objects that are not there?"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmdet.errors import DataError

DENIALS = frozenset({"No", "not", "no"})


def says_yes(answer: str) -> bool:
    """Whether an answer counts as yes.

    Only the text before the first full stop is read, commas removed, split at single spaces; it
    is a no if one of the exact words ``No``, ``not``, ``no`` occurs, else a yes. So ``NO``,
    ``None`` and ``isn't`` are a yes: the official rule.
    """
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return DENIALS.isdisjoint(words)


def pope_scores(
    questions: Sequence[Mapping[str, Any]], answers: Mapping[Any, str]
) -> dict[str, float]:
    """Accuracy, precision, recall, F1 (yes is positive) and the share of yes.

    Args:
        questions: ``{question_id, label}``, label ``yes`` or ``no``.
        answers: by question id.
    Raises:
        DataError: a question has no answer or a label is neither yes nor no.
    Source: POPE (Li et al. 2023, section 5) and its program.
    """
    if not questions:
        raise DataError("there are no questions")
    counts = dict.fromkeys(("TP", "FP", "TN", "FN"), 0)
    for question in questions:
        identity, label = question["question_id"], question["label"]
        if identity not in answers:
            raise DataError(f"question {identity} has no answer")
        if label not in ("yes", "no"):
            raise DataError(f"question {identity} has label {label!r}, not yes or no")
        said = says_yes(answers[identity])
        right = said == (label == "yes")
        counts[("T" if right else "F") + ("P" if said else "N")] += 1
    yes = counts["TP"] + counts["FP"]
    precision = counts["TP"] / yes if yes else 0.0
    positives = counts["TP"] + counts["FN"]
    recall = counts["TP"] / positives if positives else 0.0
    return {
        "accuracy": (counts["TP"] + counts["TN"]) / len(questions),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": yes / len(questions),
        **counts,
    }
