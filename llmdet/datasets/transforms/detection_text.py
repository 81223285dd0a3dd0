"""The prompt of an image whose objects are labelled: its classes among random other ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from llmdet.prompts.class_names import (
    clean_class_name,
    clean_class_name_upstream,
    clean_class_names,
)
from llmdet.prompts.parse import in_label_order
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import Classes
from llmdet.prompts.writing import class_texts


def clean_name_upstream(name: str) -> str:
    """Write a class name exactly as the original does, which leaves blanks ("bow ")."""
    return clean_class_name_upstream(name).lower()


class Vocabulary:
    """The class names of a data set.

    Args:
        names: label map {"0": name, ...} or the names in label order. "a/b" stands for two names
            of one class, one of which is drawn for each image.
        upstream: write names as the original does.

    Raises:
        DataError: a label or the words of a name are missing.
    """

    def __init__(self, names: Mapping[str, str] | Sequence[str], upstream: bool = False) -> None:
        self.source, self._upstream = names, upstream
        given = in_label_order(names) if isinstance(names, Mapping) else list(names)
        self._clean = clean_name_upstream if upstream else clean_class_name
        self._names = list(map(self._clean, given)) if upstream else list(clean_class_names(given))
        self._alternatives: dict[int, list[str]] = {}
        for label, name in enumerate(given):
            parts = [part for part in name.split("/") if upstream or clean_class_name(part)]
            if "/" in name and parts:
                self._alternatives[label] = parts

    def __len__(self) -> int:
        return len(self._names)

    def draw(self) -> Classes:
        """All classes in label order, one name drawn for each that has several."""
        names = self._names.copy()
        for label, parts in self._alternatives.items():
            names[label] = self._clean(random.choice(parts).strip())
        # The original writes a separator also behind a name without a word.
        verbatim = tuple(("", name, "") for name in names) if self._upstream else ()
        return Classes(tuple(names), verbatim)


def shuffled(labels: Collection[int]) -> list[int]:
    """Labels in random order, whatever order they came in."""
    order = sorted(labels)
    random.shuffle(order)
    return order


def fit_labels(
    labels: Sequence[int], classes: Classes, tokenizer: PromptTokenizer, room: int
) -> tuple[list[int], int]:
    """Keep the leading labels whose names fit into a prompt together.

    Returns:
        Labels that fit into ``room`` tokens, and the tokens used. With a class that does not fit
        its tokens count as used: no negative shall displace a positive.
    """
    kept, used = [], 0
    counts = tokenizer.count(class_texts(classes.select(labels)))
    for label, count in zip(labels, counts, strict=True):
        used += count
        if used > room:
            break
        kept.append(label)
    return kept, used


def draw_negatives(
    present: Collection[int], classes: int, most: int, full_prob: float, upstream: bool
) -> list[int]:
    """Draw classes that the image does not show.

    With probability `full_prob` `most` classes are drawn, otherwise a uniform number from one to
    `most`; those in the image are left out afterwards.

    Args:
        present: labels in the image.
        classes: number of classes of the data set.
        most: upper limit of the draw.
        full_prob: probability of drawing all `most`.
        upstream: make the original's draws: one number that nobody uses, at least one negative
            whatever `most`, and the order of a Python set of strings, which depends on
            PYTHONHASHSEED.
    """
    most = min(most, classes)
    number = most
    if random.random() >= full_prob:
        if upstream:
            random.random()
        number = int(np.random.choice(max(1, most))) + 1
    if not upstream:
        least = 0 if present else 1  # a prompt needs a word
        number = max(min(number, most), min(least, classes))
    drawn = np.random.choice(classes, size=min(number, classes), replace=False).tolist()
    negatives = [label for label in drawn if label not in present]
    if upstream:
        return [int(label) for label in {str(label) for label in negatives}]
    return negatives
