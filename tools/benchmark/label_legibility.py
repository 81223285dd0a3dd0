"""How legible labels are: ours, and supervision's where it is installed.

python tools/benchmark/label_legibility.py \\
    data/toy/annotations/val_seen_coco.json:data/toy/images \\
    data/toy/annotations/val_unseen_coco.json:data/toy/images

Draws the boxes of COCO files with scores that are made up, the same for both, and measures the
rectangles of the labels. supervision's RichLabelAnnotator with smart_position gets the same
enlarged image, the same letters and the same padding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/label_legibility.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from llmdet.utils.cli import count, run_cli

if TYPE_CHECKING:
    from llmdet.visualization.drawing import DrawnBoxes

HIDDEN = 0.25  # of a label's area under other labels: it can no longer be read
TOUCHED = 0.05  # of a label's area on its own object


@dataclass(frozen=True)
class Scene:
    """N boxes of one image."""

    image: np.ndarray  # [H, W, 3] uint8 RGB
    boxes: np.ndarray  # [N, 4] xyxy in pixels
    labels: list[int]
    names: list[str]
    scores: np.ndarray  # [N]


@dataclass
class Tally:
    """What was measured of one way to draw."""

    labels: int = 0
    missing: int = 0
    hidden: int = 0
    on_own_object: int = 0
    covered: list[float] = field(default_factory=list)  # share of each object under labels

    def add(self, labels: np.ndarray, boxes: np.ndarray) -> None:
        """Count the labels [N, 4] of boxes [N, 4], both xyxy in pixels of one picture."""
        shown = labels[:, 2] > labels[:, 0]
        self.labels += len(labels)
        self.missing += int((~shown).sum())
        width, height = np.ceil(np.concatenate([labels, boxes]).max(axis=0)[2:]).astype(int) + 1
        below = np.zeros((height, width), dtype=np.int32)
        for x1, y1, x2, y2 in labels[shown].astype(int):
            below[y1:y2, x1:x2] += 1
        for (x1, y1, x2, y2), box in zip(labels[shown].astype(int), boxes[shown], strict=True):
            self.hidden += bool((below[y1:y2, x1:x2] > 1).mean() > HIDDEN)
            low, high = np.maximum((x1, y1), box[:2]), np.minimum((x2, y2), box[2:])
            share = (high - low).clip(0).prod() / ((x2 - x1) * (y2 - y1))
            self.on_own_object += bool(share > TOUCHED)
        for x1, y1, x2, y2 in boxes.round().astype(int):
            if x2 > x1 and y2 > y1:
                self.covered.append(float((below[y1:y2, x1:x2] > 0).mean()))

    def row(self, name: str) -> str:
        """One line of the table."""
        shares = (f"{100 * number / self.labels:.1f}%" for number in (self.hidden, self.missing))
        own = f"{100 * self.on_own_object / self.labels:.1f}%"
        covered = f"{100 * np.mean(self.covered):.1f}%"
        return f"| {name} | {self.labels} | " + " | ".join([*shares, own, covered]) + " |"


def scenes(annotations: Path, images: Path, most: int) -> Iterator[Scene]:
    """Yield the first images of a COCO file with all their boxes."""
    from PIL import Image

    content = json.loads(annotations.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    random = np.random.default_rng(0)
    for image in content["images"][:most]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        if not rows:
            continue
        boxes = np.array([row["bbox"] for row in rows], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]
        labels = [row["category_id"] for row in rows]
        with Image.open(images / image["file_name"]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        scores = random.uniform(0.3, 1.0, len(rows))
        yield Scene(pixels, boxes, labels, [names[label] for label in labels], scores)


def supervision_labels() -> Callable[[Scene, DrawnBoxes], np.ndarray] | None:
    """What gives the [N, 4] places of supervision's labels, or None where it is not installed."""
    try:
        import supervision
    except ImportError:
        return None
    from PIL import Image

    from llmdet.visualization.fonts import main_font

    class Recorder(supervision.RichLabelAnnotator):
        places = np.zeros((0, 4))

        def _draw_labels(self, *arguments: Any, **named: Any) -> None:
            self.places = np.asarray(named["label_properties"])[:, :4]

    def place(scene: Scene, ours: DrawnBoxes) -> np.ndarray:
        height, width = scene.image.shape[:2]
        picture = Image.new("RGB", (round(width * ours.scale), round(height * ours.scale)))
        annotator = Recorder(
            font_path=str(main_font()),
            font_size=ours.lettering.size,
            text_padding=ours.lettering.padding,
            smart_position=True,
        )
        found = supervision.Detections(
            xyxy=scene.boxes * ours.scale, confidence=scene.scores, class_id=np.array(scene.labels)
        )
        pairs = zip(scene.names, scene.scores, strict=True)
        annotator.annotate(picture, found, [f"{n} {100 * s:.0f}%" for n, s in pairs])
        return annotator.places

    return place


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="ANNOTATIONS:IMAGES", help="COCO files")
    parser.add_argument("--most", type=count, default=60, help="images of each set (default 60)")
    args = parser.parse_args(argv)
    from llmdet.visualization.drawing import draw_detections

    place = supervision_labels()
    ours, theirs = Tally(), Tally()
    for pair in args.sets:
        annotations, _, images = pair.partition(":")
        for scene in scenes(Path(annotations), Path(images), args.most):
            named = (scene.labels, scene.names, scene.scores)
            drawn = draw_detections(scene.image, scene.boxes, *named)
            ours.add(drawn.labels, scene.boxes * drawn.scale)
            if place is not None:
                theirs.add(place(scene, drawn), scene.boxes * drawn.scale)
    print("| drawing | labels | hidden | left out | on their object | objects covered |")
    print("|---|---|---|---|---|---|")
    print(ours.row("ours"))
    if place is not None:
        print(theirs.row("supervision"))


if __name__ == "__main__":
    run_cli(main)
