"""The prompt of an image whose objects are labelled: its classes among random other ones."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmdet.datasets.transforms.tokens import TokenCounter
from llmdet.errors import DataError


def clean_name(name: str) -> str:
    """Write a class name as a prompt does: "Fire_hydrant (red)" -> "fire hydrant".

    A name that consists of nothing else keeps what its parentheses hold.
    """
    words = re.sub(r"\(.*\)", "", name) or name
    return " ".join(words.replace("_", " ").lower().split())


def clean_name_upstream(name: str) -> str:
    """Write a class name exactly as the original does, which leaves blanks ("bow ")."""
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ").lower()


class Vocabulary:
    """The class names of a data set.

    Args:
        names: label map {"0": name, ...} or the names in label order. "a/b" stands for two names
            of one class, one of which is drawn for each image.
        upstream: write names as the original does.
    """

    def __init__(self, names: Mapping[str, str] | Sequence[str], upstream: bool = False) -> None:
        self.source = names
        self._clean = clean_name_upstream if upstream else clean_name
        self._names = _in_label_order(names) if isinstance(names, Mapping) else list(names)
        self._alternatives: dict[int, list[str]] = {}
        for label, name in enumerate(self._names):
            parts = [part for part in name.split("/") if part.strip() or upstream]
            if "/" in name and parts:
                self._alternatives[label] = parts

    def __len__(self) -> int:
        return len(self._names)

    def draw(self) -> DrawnNames:
        """Choose one name for each class that has several."""
        chosen = {
            label: random.choice(parts).strip() for label, parts in self._alternatives.items()
        }
        return DrawnNames(self, chosen)

    def name(self, label: int, chosen: Mapping[int, str]) -> str:
        return self._clean(chosen.get(label, self._names[label]))


def _in_label_order(label_map: Mapping[str, str]) -> list[str]:
    try:
        return [label_map[str(label)] for label in range(len(label_map))]
    except KeyError as error:
        raise DataError(
            f"the label map of {len(label_map)} classes has no label {error}; its labels must be "
            f'"0" to "{len(label_map) - 1}".'
        ) from None


class DrawnNames:
    """The class names that one image uses, by label."""

    def __init__(self, vocabulary: Vocabulary, chosen: Mapping[int, str]) -> None:
        self._vocabulary = vocabulary
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._vocabulary)

    def __getitem__(self, label: int) -> str:
        return self._vocabulary.name(label, self._chosen)


@dataclass(frozen=True)
class DetectionText:
    """Class names joined to a prompt."""

    text: str
    spans: dict[int, list[list[int]]]  # position -> characters, of the classes in the image
    positions: dict[int, int]  # label of the data set -> position in the prompt, of the same


def choose_positives(
    labels: Collection[int], names: DrawnNames, count: TokenCounter, budget: int
) -> tuple[list[int], int]:
    """Draw the order of the classes in an image and keep those that fit.

    Returns:
        Labels that fit into `budget` tokens together, and the tokens used. With a class that does
        not fit its tokens count as used: no negative shall displace a positive.
    """
    order = sorted(labels)
    random.shuffle(order)
    kept, used = [], 0
    for label in order:
        used += count(names[label])
        if used > budget:
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


def fit_negatives(
    negatives: Sequence[int], names: DrawnNames, count: TokenCounter, budget: int
) -> list[int]:
    """Keep the leading negatives whose tokens fit into `budget`."""
    kept = []
    for label in negatives:
        budget -= count(names[label])
        if budget < 0:
            break
        kept.append(label)
    return kept


def join_names(
    positives: Sequence[int], negatives: Sequence[int], names: DrawnNames
) -> DetectionText:
    """Shuffle all classes and write them into one prompt "cat. dog. "."""
    order = [*negatives, *positives]
    random.shuffle(order)
    shown = set(positives)
    text = ""
    spans: dict[int, list[list[int]]] = {}
    positions: dict[int, int] = {}
    for position, label in enumerate(order):
        name = names[label]
        if label in shown:
            spans[position] = [[len(text), len(text) + len(name)]]
            positions[label] = position
        text += f"{name}. "
    return DetectionText(text, spans, positions)
