"""Accuracy of a class that is learned from a few images, and what learning it costs.

    python -m llmdet.datasets.toy.new_shapes data/new_shapes
    python tools/benchmark/few_shot.py CONFIG WEIGHTS data/new_shapes --category arrow \
        --known data/toy/annotations/val_unseen_coco.json data/toy/images

FOLDER holds instances_train.json, instances_val.json and images/. For each number of examples one
category is learned anew from training images and looked for in the validation images. AP is COCO's:
of the name before, of the class after, of the class in one prompt with the known ones, and of the
known ones by themselves before and after. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/few_shot.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

COLUMNS = ("images", "boxes", "AP", "AP50", "AP beside known", "known", "seconds", "GiB")


@dataclass
class Shot:
    """An image and the boxes xyxy of its classes, in its pixels."""

    image: Path
    boxes: dict[str, list[list[float]]] = field(default_factory=dict)

    def of(self, name: str) -> list[list[float]]:
        """The boxes of one class."""
        return self.boxes.get(name, [])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config, or the folder of a saved detector")
    parser.add_argument("weights", help="checkpoint")
    parser.add_argument("folder", type=Path, help="with COCO json files of the new class")
    parser.add_argument("--category", required=True, help="of FOLDER, which is learned")
    parser.add_argument(
        "--known",
        type=Path,
        nargs=2,
        metavar=("FILE", "IMAGES"),
        help="COCO json of classes that the detector knows, and the folder of its images",
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 30], metavar="N")
    parser.add_argument("--images", type=int, default=40, help="of each test (default 40)")
    parser.add_argument("--steps", type=int, help="of learning; default: that of add_class")
    parser.add_argument("--lr", type=float, help="of learning; default: that of add_class")
    parser.add_argument("--seed", type=int, default=0, help="which images are the examples")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each number of examples."""
    args = parse_args(argv)
    import numpy as np

    from llmdet import Detector

    name, options = args.category, {"seed": args.seed}
    options |= {key: getattr(args, key) for key in ("steps", "lr") if getattr(args, key)}
    detector = Detector.from_pretrained(args.config, args.weights, device="cpu")
    training, held_out = (
        read_shots(args.folder / f"instances_{part}.json", args.folder / "images")
        for part in ("train", "val")
    )
    held_out = held_out[: args.images]
    known = read_shots(*args.known)[: args.images] if args.known else []
    names = sorted({each for shot in known for each in shot.boxes})
    order = np.random.default_rng(args.seed).permutation(len(training))
    shown = [training[index] for index in order if training[index].of(name)]

    words, loose = average_precision(detector, held_out, [name], [name])
    before, _ = average_precision(detector, known, names, names)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    print(row(0, 0, words, loose, None, before, None, None), flush=True)
    for count in args.shots:
        examples = [(shot.image, shot.of(name)) for shot in shown[:count]]
        start = time.process_time()
        learned = detector.add_class(name, examples, others=names, **options)
        seconds = time.process_time() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        alone, loose = average_precision(detector, held_out, [name], [name])
        beside, _ = average_precision(detector, held_out, [name, *names], [name])
        after, _ = average_precision(detector, known, names, names)
        cells = (learned.examples, learned.boxes, alone, loose, beside, after, seconds, memory)
        print(row(*cells), flush=True)
        detector.remove_class(name)


def row(*cells: float | None) -> str:
    """A row of the table; None for what was not measured."""
    texts = ["" if c is None else f"{c:.1f}" if isinstance(c, float) else str(c) for c in cells]
    return f"| {' | '.join(texts)} |"


def average_precision(
    detector: Any, shots: Sequence[Shot], asked: Sequence[str], measured: Sequence[str]
) -> tuple[float | None, float | None]:
    """COCO's AP and AP50 in percent of some classes; None where there is no image.

    Args:
        detector: finds.
        shots: what is there.
        asked: the prompt.
        measured: of it, those that count.
    """
    import numpy as np

    from llmdet.evaluation.coco_ap import coco_curves
    from llmdet.evaluation.detections import DetectionTable
    from llmdet.evaluation.ground_truth import parse_coco

    if not shots:
        return None, None
    ids = {name: number for number, name in enumerate(measured, start=1)}
    rows = []
    for number, shot in enumerate(shots):
        found = detector.predict(shot.image, list(asked), threshold=0)
        for box, score, name in zip(found.boxes, found.scores, found.names, strict=True):
            if name in ids:
                rows.append((number, ids[name], *box, score))
    table = np.asarray(rows, np.float64).reshape(-1, 7)
    images, categories = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    detections = DetectionTable(images, categories, table[:, 2:6], table[:, 6])
    curves = coco_curves(parse_coco(as_coco(shots, ids)), detections)
    return 100 * curves.mean_precision(), 100 * curves.mean_precision(iou=0.5)


def as_coco(shots: Sequence[Shot], ids: dict[str, int]) -> dict[str, Any]:
    """The content of a COCO file of these classes; the places of images are their ids."""
    annotations: list[dict[str, Any]] = []
    for number, shot in enumerate(shots):
        for name, category in ids.items():
            for x1, y1, x2, y2 in shot.of(name):
                entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                width, height = x2 - x1, y2 - y1
                box = {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
                annotations.append(entry | box)
    images = [{"id": number, "width": 1, "height": 1} for number in range(len(shots))]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def read_shots(file: Path, images: Path) -> list[Shot]:
    """The images of a COCO file with their boxes."""
    from llmdet.utils.files import read_json

    content = read_json(file)
    names = {category["id"]: category["name"] for category in content["categories"]}
    shots = {image["id"]: Shot(images / image["file_name"]) for image in content["images"]}
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes = shots[annotation["image_id"]].boxes
        boxes.setdefault(names[annotation["category_id"]], []).append([x, y, x + width, y + height])
    return list(shots.values())


if __name__ == "__main__":
    run_cli(main)
