"""Rows whose boxes are described by expressions, in both forms in which Real-Data exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmdet.datasets.fields import Fields

#: Whether an expression describes one box or several; both spellings of the latter exist.
RELATIONS = {"single": "single", "multi": "multi", "multiple": "multi"}
#: Both spellings of the field, the correct one first.
POSITIVES = ("positive_expressions", "postive_expressions")


@dataclass(frozen=True, slots=True)
class ExpressionPair:
    """Boxes of an image, and expressions that do and that do not describe them."""

    source: str  # what wrote the expressions, such as "vlm_short"
    relation: str  # "single": each expression is of one box; "multi": of several
    boxes: list[list[float]]  # x1, y1, x2, y2 in pixels
    category: str  # name of the class of the boxes, empty where the row does not say it
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


def read_pairs(row: Fields) -> list[ExpressionPair]:
    """The pairs of the field ``pairs``, which maps each source to one pair or a list of them.

    Raises:
        DataError: a field is missing or malformed; it is named.
    """
    pairs = row.object("pairs")
    return [
        _read_pair(source, item)
        for source in pairs
        for item in (pairs.objects(source) if pairs.is_array(source) else [pairs.object(source)])
    ]


def _read_pair(source: str, item: Fields) -> ExpressionPair:
    relation = item.text("relation")
    if relation not in RELATIONS:
        raise item.fault("relation", f"is {relation!r}, not one of {', '.join(RELATIONS)}")
    spelling = next((name for name in POSITIVES if name in item), POSITIVES[0])
    return ExpressionPair(
        source=source,
        relation=RELATIONS[relation],
        boxes=item.boxes("bboxes"),
        category=item.text("category") if "category" in item else "",
        positives=_texts(item, spelling),
        negatives=_texts(item, "negative_expressions"),
    )


def _texts(item: Fields, key: str) -> tuple[str, ...]:
    """A list of strings, or one; none where the field is absent."""
    if key not in item or item.get(key) == []:
        return ()
    value = item.strings(key)
    return (value,) if isinstance(value, str) else tuple(value)


def said_of(pairs: Sequence[ExpressionPair]) -> Mapping[str, int]:
    """How many pairs, positive and negative expressions there are, by the words of a report."""
    return {
        "expression pairs": len(pairs),
        "positive expressions": sum(len(pair.positives) for pair in pairs),
        "negative expressions": sum(len(pair.negatives) for pair in pairs),
    }
