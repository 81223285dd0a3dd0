"""Recall of a detector of proposals on the toy set, by granularity and size, beside random boxes.

    python -m llmdet.datasets.toy data/toy
    python tools/train.py configs/upn/toy.py
    python tools/benchmark/proposals.py configs/upn/toy.py work_dirs/toy/iter_1550.pth data/toy

Average recall over IoU 0.5:0.05:0.95 of the best boxes of an image, in percent. The images show
combinations of colour and shape that training never had. Large objects are those that the training
set annotates as coarse.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/proposals.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli, write_result

if TYPE_CHECKING:
    import numpy as np

    from llmdet.evaluation.detections import DetectionTable

LIMITS = (5, 10, 50)
GRANULARITIES = ("fine", "coarse")
SMALLEST_LARGE = 0.30  # longer side of a large object over the short side of its image


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="of a detector of proposals")
    parser.add_argument("weights", help="checkpoint")
    parser.add_argument("folder", type=Path, help="of the toy set")
    parser.add_argument("--split", default="val_unseen", help="default: val_unseen")
    parser.add_argument("--images", type=int, help="of the split; default: all")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each kind of boxes and size of objects."""
    args = parse_args(argv)
    import numpy as np

    from llmdet import Detector
    from llmdet.evaluation.ground_truth import parse_coco
    from llmdet.evaluation.proposal_recall import proposal_recall
    from llmdet.utils.files import read_json

    detector = Detector.from_pretrained(args.config, args.weights, device="cpu")
    content = read_json(args.folder / "annotations" / f"{args.split}_coco.json")
    content["images"] = content["images"][: args.images]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    truth, sizes = parse_coco(content), _short_sides(content)
    short = np.array([sizes[image] for image in truth.images.tolist()])
    large = truth.boxes[:, 2:].max(1, initial=0) >= SMALLEST_LARGE * short
    write_result(f"{'boxes':<8} {'objects':<7} " + " ".join(f"AR@{n:<4}" for n in LIMITS))
    for name, boxes in _all_boxes(detector, content["images"], args.folder):
        for objects, mask in (("all", large | ~large), ("small", ~large), ("large", large)):
            values = proposal_recall(truth.select(mask), boxes, LIMITS)
            row = " ".join(f"{100 * values[f'AR@{n}']:7.1f}" for n in LIMITS)
            write_result(f"{name:<8} {objects:<7} {row}")


def _short_sides(content: dict[str, Any]) -> dict[int, int]:
    return {image["id"]: min(image["width"], image["height"]) for image in content["images"]}


def _all_boxes(
    detector: Any, images: Sequence[dict[str, Any]], folder: Path
) -> Iterator[tuple[str, DetectionTable]]:
    """Boxes of both granularities, and as many random ones."""
    import numpy as np

    paths = [folder / "images" / image["file_name"] for image in images]
    ids = [image["id"] for image in images]
    for name in GRANULARITIES:
        found = detector.predict(paths, granularity=name, threshold=0, nms=1.0)
        yield name, _table(ids, [f.boxes for f in found], [f.scores for f in found])
    random = np.random.default_rng(0)
    corners = [random.random((max(LIMITS), 2, 2)) for _ in images]
    scales = [np.array([image["width"], image["height"]]) for image in images]
    boxes = [np.sort(c, 1) * s for c, s in zip(corners, scales, strict=True)]
    scores = [random.random(max(LIMITS)) for _ in images]
    yield "random", _table(ids, [b.reshape(-1, 4) for b in boxes], scores)


def _table(
    ids: Sequence[int], boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray]
) -> DetectionTable:
    import numpy as np

    from llmdet.evaluation.detections import DetectionTable

    images = np.repeat(np.asarray(ids, np.int64), [len(of_image) for of_image in boxes])
    return DetectionTable(
        images, np.zeros_like(images), np.concatenate(boxes), np.concatenate(scores)
    )


if __name__ == "__main__":
    run_cli(main)
