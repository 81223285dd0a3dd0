"""Referring expressions answered by choosing among candidate boxes."""

from collections.abc import Mapping, Sequence

from llmdet.evaluation.boxes import pairwise_iou
from llmdet.evaluation.expressions import Expression
from llmdet.evaluation.predictions import ImagePredictions
from llmdet.prompts.region_tasks import read_choice

_IOU = 0.5


def choice_scores(
    expressions: Sequence[Expression], rows: Mapping[int, ImagePredictions]
) -> dict[str, float]:
    """Accuracy at an overlap of 0.5 of the chosen candidates.

    An answer is right that names a candidate which overlaps a true box by half or more or, of an
    expression that nothing answers to, says that none fits.

    Args:
        expressions: annotations.
        rows: by expression id; ``boxes`` are the candidates in the order of the question, ``text``
            is the answer. An expression without a row is a miss.

    Returns:
        ``accuracy``; ``found``: the share of expressions that have a right answer, the most that
        accuracy can be; shares of answers that say ``none`` and that are ``unread``: they
        name no candidate and do not say so; ``candidates``: how many there are on average.

    Source: RegionGPT (Guo et al. 2024), referring expressions among proposals.
    """
    right = found = none = unread = offered = 0
    for expression in expressions:
        row = rows.get(expression.id)
        if row is None:
            continue
        answer, count = row.text or "", len(row.boxes)
        choice = read_choice(answer)
        overlaps = pairwise_iou(row.boxes, expression.boxes)
        fits = [bool((overlap >= _IOU).any()) for overlap in overlaps]  # of each candidate
        offered += count
        if choice is not None and 1 <= choice <= count:
            right += fits[choice - 1]
        elif choice == 0:
            none += 1
            right += not len(expression.boxes)
        else:
            unread += 1
        found += any(fits) or not len(expression.boxes)
    total = max(1, len(expressions))
    counts = {"accuracy": right, "found": found, "none": none, "unread": unread}
    return {
        **{name: value / total for name, value in counts.items()},
        "candidates": offered / total,
    }
