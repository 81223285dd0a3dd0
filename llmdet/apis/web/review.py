"""Boxes that a detector was unsure of, and what a person decides about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.visualization.drawing import draw_detections

#: Label that a box gets; None: there is no such object.
Decision = int | None
COLUMNS = ("picture", "class", "score", "decision")


@dataclass(frozen=True)
class DoubtfulBox:
    """A box whose score lies near the threshold of its class."""

    image: Path
    name: str  # of the picture, as the data set calls it
    box: tuple[float, float, float, float]  # xyxy in pixels of the picture
    label: int  # place in the classes
    score: float


@dataclass
class Review:
    """A list of boxes to decide about, one after the other.

    Attributes:
        classes: names by label.
        boxes: the most doubtful first.
        store: writes all decisions, position -> label, into the data set; gives a sentence.
        decisions: those that were made.
    """

    classes: Sequence[str]
    boxes: Sequence[DoubtfulBox]
    store: Callable[[Mapping[int, Decision]], str]
    decisions: dict[int, Decision] = field(default_factory=dict)

    def decide(self, position: int, label: Decision) -> None:
        """Note what a box is; :meth:`save` writes it."""
        self.decisions[position] = label

    def save(self) -> str:
        """Write the decisions into the data set; gives a sentence."""
        return self.store(self.decisions)

    def rows(self) -> list[list[Any]]:
        """The boxes as a table of :data:`COLUMNS`."""
        return [
            [box.name, self.classes[box.label], round(box.score, 3), self.decision(position)]
            for position, box in enumerate(self.boxes)
        ]

    def decision(self, position: int) -> str:
        """What was decided about a box, in a word; empty where nothing was."""
        if position not in self.decisions:
            return ""
        label = self.decisions[position]
        if label is None:
            return "drop"
        return "keep" if label == self.boxes[position].label else f"now {self.classes[label]}"

    def sentence(self, position: int) -> str:
        """Which box is shown."""
        box = self.boxes[position]
        decided = self.decision(position)
        return (
            f"{position + 1} of {len(self.boxes)}: {self.classes[box.label]}, score "
            f"{box.score:.2f}, in {box.name}" + (f" ({decided})" if decided else "")
        )

    def draw(self, position: int) -> np.ndarray:
        """The picture [H, W, 3] uint8 RGB of a box with this box alone.

        Raises:
            DataError: the picture cannot be read any more.
        """
        from llmdet.datasets.pictures import read_picture

        box = self.boxes[position]
        drawn = draw_detections(
            np.asarray(read_picture(box.image)),
            np.array([box.box]),
            [box.label],
            [self.classes[box.label]],
            [box.score],
            classes=self.classes,
        )
        return drawn.picture
