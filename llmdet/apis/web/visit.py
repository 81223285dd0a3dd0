"""A visitor's picture: what was found in it, what is shown of that, and what was described."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.apis.detector import Detector, ImageSession
from llmdet.apis.results import Detection, Results
from llmdet.errors import ConfigError, DataError
from llmdet.visualization.drawing import DrawnBoxes, draw_detections

#: Tasks of the page -> argument of ``Detector.predict``.
TASKS = {"Class names": "classes", "Sentence": "text", "Expression": "expression"}
#: Boxes below this score are not kept, however low the slider stands.
LOWEST_SCORE = 0.05
#: Boxes that are described together.
MOST_DESCRIBED = 12
#: Overlap (IoU) of boxes of which the best one is kept, where the visitor wants that.
MERGED_OVERLAP = 0.7
#: Name of a box that the visitor drew.
OWN_BOX = "your box"
COLUMNS = ("name", "score", "box: x1, y1, x2, y2", "caption")
_LONGEST_QUESTION = 4000  # characters
_SMALLEST_BOX = 2.0  # pixels


@dataclass
class Visit:
    """One picture of one visitor, which the detector has looked at."""

    name: str  # of the uploaded file, without its folder
    session: ImageSession
    pixels: np.ndarray  # [H, W, 3] uint8 RGB
    question: dict[str, Any] = field(default_factory=dict)  # argument of predict -> words
    found: Results | None = None  # of LOWEST_SCORE and more
    captions: dict[int, str] = field(default_factory=dict)  # of some of the found boxes
    description: str = ""
    own_boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    own_captions: list[str] = field(default_factory=list)
    corner: tuple[float, float] | None = None  # the first one of a box that is being drawn
    files: Path | None = None  # folder of its files for download
    scale: float = 1.0  # pixels of the shown picture per pixel of the image

    @classmethod
    def of(cls, detector: Detector, path: str | Path) -> Visit:
        """Look at an uploaded picture.

        Raises:
            DataError: it cannot be read.
        """
        from llmdet.datasets.pictures import read_picture

        session = detector.set_image(str(path))
        return cls(Path(path).name, session, np.asarray(read_picture(path)))

    def find(self, task: str, words: str, merge: bool = True) -> None:
        """Find what words name; earlier results are forgotten, boxes of the visitor are kept.

        Args:
            task: one of :data:`TASKS`.
            words: class names on lines or between commas or " . ", a sentence, or an expression.
            merge: keep the best of boxes that overlap by more than :data:`MERGED_OVERLAP`.

        Raises:
            ConfigError, DataError: there are no words, too many, or such that no prompt can hold.
        """
        if task not in TASKS:
            raise ConfigError(f"There is no task {task!r}: choose one of {', '.join(TASKS)}.")
        if not words.strip():
            raise DataError("There is nothing to look for yet: write it into the text field.")
        if len(words) > _LONGEST_QUESTION:
            raise DataError(f"The text has more than {_LONGEST_QUESTION} characters: shorten it.")
        argument = TASKS[task]
        question = {argument: class_names(words) if argument == "classes" else words.strip()}
        nms = MERGED_OVERLAP if merge else None
        self.found = self.session.predict(**question, threshold=LOWEST_SCORE, nms=nms)
        self.question = question
        self.captions, self.description = {}, ""

    def names(self, threshold: float) -> dict[str, int]:
        """Name -> number of its boxes of at least ``threshold``, most frequent first."""
        if self.found is None or self.found.scores is None:
            return {}
        kept = np.flatnonzero(self.found.scores >= threshold)
        return dict(Counter(self.found.names[index] for index in kept).most_common())

    def shown(self, threshold: float, names: list[str] | None = None) -> np.ndarray:
        """[n] positions of the found boxes that a threshold and a choice of names leave."""
        if self.found is None or self.found.scores is None:
            return np.zeros(0, dtype=np.int64)
        kept = self.found.scores >= threshold
        if names is not None:
            kept &= np.isin(np.array(self.found.names, dtype=object), names)
        return np.flatnonzero(kept)

    def describe(self, positions: np.ndarray) -> None:
        """Describe the image and some of the found boxes."""
        boxes = np.zeros((0, 4), dtype=np.float32)
        chosen = positions[:MOST_DESCRIBED]
        if self.found is not None and len(chosen):
            boxes = self.found.boxes[chosen]
        kinds = {"image", "regions"} if len(boxes) else {"image"}
        said = self._captions(boxes, kinds)
        self.description = said.description or ""
        self.captions.update(zip(chosen.tolist(), said.captions or (), strict=False))

    def click(self, x: float, y: float) -> bool:
        """Take a click at (x, y) of the shown picture: every second one ends a box.

        Returns:
            Whether a box was drawn and described.

        Raises:
            DataError: the click lies beside the image, or the box has no area.
        """
        height, width = self.pixels.shape[:2]
        point = (x / self.scale, y / self.scale)
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise DataError("This point lies below the picture: click inside of it.")
        if self.corner is None:
            self.corner = point
            return False
        first, self.corner = self.corner, None
        low, high = np.minimum(first, point), np.maximum(first, point)
        if (high - low).min() < _SMALLEST_BOX:
            raise DataError("The two corners are one point: click two opposite corners of a box.")
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        said = self._captions(np.array([box], dtype=np.float32), {"regions"})
        self.own_boxes.append(box)
        self.own_captions.append((said.captions or [""])[0])
        return True

    def forget_own_boxes(self) -> None:
        """Remove what the visitor drew."""
        self.own_boxes, self.own_captions, self.corner = [], [], None

    def _captions(self, boxes: np.ndarray, kinds: set[str]) -> Results:
        if not len(boxes):
            return self.session.predict(**self.question, captions=kinds, threshold=1.0)
        return self.session.predict(**self.question, boxes=boxes, captions=kinds)

    def draw(self, positions: np.ndarray, captions: bool = False) -> DrawnBoxes:
        """Draw found boxes, those of the visitor, and the corner of one that is being drawn.

        Args:
            positions: of the found boxes, see :meth:`shown`.
            captions: write captions and the description below the picture.
        """
        rows = list(self._boxes(positions))
        drawn = draw_detections(
            self.pixels if self.corner is None else _marked(self.pixels, self.corner),
            np.array([row.box for row in rows]).reshape(-1, 4),
            [row.label for row in rows],
            [row.name for row in rows],
            [row.score for row in rows],
            captions=[row.caption or "" for row in rows] if captions else None,
            description=self.description if captions else "",
            classes=() if self.found is None else (*self.found.classes, OWN_BOX),
        )
        self.scale = drawn.scale
        return drawn

    def _boxes(self, positions: np.ndarray) -> Iterator[Detection]:
        """The found boxes at some positions with their captions, then the visitor's own."""
        if self.found is not None:
            for index in positions.tolist():
                yield replace(self.found[index], caption=self.captions.get(index))
        for box, caption in zip(self.own_boxes, self.own_captions, strict=True):
            yield Detection(box, None, -1, OWN_BOX, caption)

    def rows(self, positions: np.ndarray) -> list[list[Any]]:
        """What is drawn as a table of :data:`COLUMNS`."""
        return [
            [
                row.name,
                None if row.score is None else round(row.score, 3),
                "  ".join(f"{value:.1f}" for value in row.box),
                row.caption or "",
            ]
            for row in self._boxes(positions)
        ]

    def to_dict(self, positions: np.ndarray, threshold: float) -> dict[str, Any]:
        """What is drawn, ready for JSON; no path of the server is in it."""
        height, width = self.pixels.shape[:2]
        fields: dict[str, Any] = {
            "image": self.name,
            "width": width,
            "height": height,
            "prompt": self.question,
            "threshold": threshold,
        }
        if self.found is not None:
            known = self.found.select(positions).to_dict()
            kept = ("labels", "scores", "bboxes", "label_names", "best_score")
            fields |= {key: known[key] for key in kept if key in known}
            if self.captions:
                fields["captions"] = [self.captions.get(i) for i in positions.tolist()]
        if self.description:
            fields["description"] = self.description
        if self.own_boxes:
            pairs = zip(self.own_boxes, self.own_captions, strict=True)
            fields["own_boxes"] = [{"bbox": list(box), "caption": said} for box, said in pairs]
        return fields

    def summary(self, positions: np.ndarray, threshold: float) -> str:
        """A sentence on what is shown, and the description on a line of its own."""
        if self.corner is not None:
            return "Now click the opposite corner."
        lines = [self._found_sentence(positions, threshold), self.description]
        return "\n".join(filter(None, lines))

    def _found_sentence(self, positions: np.ndarray, threshold: float) -> str:
        if self.found is None:
            return "The picture is there: say what to look for."
        if len(positions):
            counts = Counter(self.found.names[index] for index in positions.tolist())
            return "Found: " + ", ".join(f"{n} x {name}" for name, n in counts.most_common()) + "."
        best = self.found.best_score
        if best is None:
            return "Nothing was found."
        return f"Nothing has a score of {threshold:.2f} or more; the best is {best:.2f}."


def class_names(words: str) -> list[str]:
    """Class names on lines, between commas or semicolons, or between " . "."""
    names = [name.strip() for name in re.split(r"[\n,;]|\s\.(?:\s|$)", words)]
    return [name.removesuffix(".").strip() for name in names if name.strip(" .")]


def _marked(pixels: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    """A copy of an image [H, W, 3] with a cross at one point."""
    height, width = pixels.shape[:2]
    marked = pixels.copy()
    x, y = min(round(corner[0]), width - 1), min(round(corner[1]), height - 1)
    reach, thick = max(3, (height + width) // 80), max(1, (height + width) // 800)
    for thickness, color in ((thick + 1, 0), (thick, 255)):
        marked[max(0, y - thickness) : y + thickness, max(0, x - reach) : x + reach] = color
        marked[max(0, y - reach) : y + reach, max(0, x - thickness) : x + thickness] = color
    return marked
