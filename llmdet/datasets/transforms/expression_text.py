"""The prompt of an image whose objects are described by expressions, as Real-Data has them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmdet.datasets.expressions import RELATIONS, ExpressionPair
from llmdet.errors import ConfigError
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import Classes
from llmdet.prompts.writing import class_texts

#: The source whose expression is the name of the class.
CATEGORY = "category"


@dataclass(frozen=True)
class Choice:
    """What the expressions of an image may be drawn from, and how often."""

    source: str
    relation: str | None  # None: of one box as well as of several
    share: float

    def takes(self, pair: ExpressionPair) -> bool:
        """Whether a pair has an expression of this kind."""
        if self.relation not in (None, pair.relation):
            return False
        if self.source == CATEGORY:
            return bool(pair.category)
        return self.source == pair.source and bool(pair.positives)


@dataclass(frozen=True)
class DrawnPairs:
    """The pairs of an image that a prompt is written of."""

    numbers: tuple[int, ...]  # in random order
    by_category: bool  # the expression of each is the name of its class

    def positives(self, pair: ExpressionPair, most: int) -> list[str]:
        """Up to ``most`` expressions of one of the pairs, drawn without repetition."""
        if self.by_category:
            return [pair.category]
        return random.sample(pair.positives, min(most, len(pair.positives)))


def read_choices(shares: Mapping[str, float]) -> tuple[Choice, ...]:
    """What a config says: "SOURCE", "SOURCE/single" or "SOURCE/multi" -> share.

    Raises:
        ConfigError: a relation is unknown, or a share is no number above 0.
    """
    choices = []
    for name, share in shares.items():
        source, _, relation = name.partition("/")
        if relation and relation not in RELATIONS:
            raise ConfigError(
                f"SampleExpressions: shares has {name!r}; behind the source may stand /single or "
                "/multi"
            )
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not share > 0:
            raise ConfigError(
                f"SampleExpressions: shares[{name!r}] is {share!r}; give a number above 0"
            )
        choices.append(Choice(source, RELATIONS.get(relation), share))
    return tuple(choices)


def draw_pairs(
    choices: Sequence[Choice], pairs: Sequence[ExpressionPair], shown: Collection[int]
) -> DrawnPairs:
    """Draw one source and relation out of those that an image has, by their shares.

    An image that has none of them is described by any source that it has, and one without any by
    the names of its classes.

    Args:
        choices: of the config.
        pairs: of the row.
        shown: numbers of the pairs that have a box in the picture.
    """
    others = sorted({pairs[number].source for number in shown})
    fallbacks = [[Choice(source, None, 1.0) for source in others], [Choice(CATEGORY, None, 1.0)]]
    for ways in (choices, *fallbacks):
        found = [(way, [n for n in sorted(shown) if way.takes(pairs[n])]) for way in ways]
        found = [(way, numbers) for way, numbers in found if numbers]
        if found:
            ((way, numbers),) = random.choices(found, [way.share for way, _ in found])
            random.shuffle(numbers)
            return DrawnPairs(tuple(numbers), way.source == CATEGORY)
    return DrawnPairs((), False)


def fit_expressions(
    texts: Iterable[str], tokenizer: PromptTokenizer, room: int, most: int | None = None
) -> tuple[list[str], int, int]:
    """Keep expressions in order while they fit; one that does not is passed over.

    Args:
        texts: distinct expressions.
        tokenizer: the text encoder's.
        room: tokens that are free.
        most: expressions that are kept at most.

    Returns:
        Those that are kept, the tokens that they take, and how many were passed over.
    """
    kept: list[str] = []
    used = passed = 0
    texts = list(texts)
    counts = tokenizer.count(class_texts(Classes(tuple(texts))))
    for text, count in zip(texts, counts, strict=True):
        if most is not None and len(kept) == most:
            break
        if used + count > room:
            passed += 1
            continue
        kept.append(text)
        used += count
    return kept, used, passed


def label_boxes(
    boxes: Sequence[Sequence[float]], places: Sequence[Collection[int]]
) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    """Give every box one label, which stands for all expressions that describe it.

    Two pairs may hold the same box. Twice in the ground truth it would be matched with two
    queries, each of which were to deny the other's expression.

    Args:
        boxes: N boxes.
        places: of each, the expressions of its pair, by their place in the prompt; () where none
            of them is in the prompt.

    Returns:
        Indices of the boxes that stay, their labels, and the expressions of each label.
    """
    first: dict[tuple[float, ...], int] = {}
    described: dict[int, set[int]] = {}
    for index, (box, of_box) in enumerate(zip(boxes, places, strict=True)):
        if of_box:
            described.setdefault(first.setdefault(tuple(box), index), set()).update(of_box)
    labels: dict[tuple[int, ...], int] = {}
    numbers = [
        labels.setdefault(tuple(sorted(of_box)), len(labels)) for of_box in described.values()
    ]
    return list(described), numbers, list(labels)


def draw_negative_expressions(
    pairs: Sequence[ExpressionPair], drawn: DrawnPairs, clean: Any
) -> list[str]:
    """Negative expressions of the drawn pairs in random order; of all where none is drawn.

    What describes a box of the image, in whichever pair, is none.
    """
    true = {clean(text) for pair in pairs for text in (*pair.positives, pair.category)}
    chosen = [pairs[number] for number in drawn.numbers] or pairs
    texts = dict.fromkeys(clean(text) for pair in chosen for text in pair.negatives)
    negatives = [text for text in texts if text and text not in true]
    random.shuffle(negatives)
    return negatives
