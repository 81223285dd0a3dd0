"""Time and memory of LVIS fixed AP on generated loads, beside other evaluators.

Examples:
    python tools/benchmark/lvis_metric.py --images 5000 --boxes 300
    python tools/benchmark/lvis_metric.py --images 4809 --boxes 300 --chunks 31
    python tools/benchmark/lvis_metric.py --images 200 --boxes 300 --tools ours lvis-api hotcoco

A load is a generated LVIS-like annotation set (1,203 classes, about 11 present and 9 verified
absent ones an image) and, per image and chunk of the class list, the boxes of a detector. Each
tool runs in a process of its own, on the same load; the times are processor seconds (of all its
threads) of the evaluation, from arrays (ours) or from what it reads (others) to the numbers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What runs with `python tools/benchmark/lvis_metric.py` finds the package, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.evaluation.ground_truth import LVISGroundTruth, parse_lvis

CLASSES = 1203
POSITIVES, NEGATIVES = 11, 9  # classes annotated and verified absent in an image, on average
FREQUENCIES = ("r", "c", "f")
SIZE = (640.0, 480.0)
SEED = 20


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=300, help="boxes per image and chunk")
    parser.add_argument("--chunks", type=int, default=1, help="chunks of the class list")
    parser.add_argument(
        "--tools",
        nargs="+",
        default=["ours"],
        choices=sorted(TOOLS),
        metavar="TOOL",
        help=", ".join(sorted(TOOLS)),
    )
    parser.add_argument("--json", metavar="OUT", help="also write the results to this file")
    return parser.parse_args()


def main() -> None:
    """Run every tool on the same load and print a table."""
    args = parse_args()
    results = []
    print(f"{'tool':<18} {'cpu s':>8} {'peak GB':>8} {'AP':>12} {'boxes':>12}")
    for tool in args.tools:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            result = pool.apply(measure, (tool, args.images, args.boxes, args.chunks))
        results.append(result)
        print(
            f"{tool:<18} {result['seconds']:8.2f} {result['peak_gb']:8.2f} "
            f"{result['AP']:12.9f} {result['boxes']:12d}"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as stream:
            json.dump(results, stream, indent=2)


def measure(tool: str, images: int, boxes: int, chunks: int) -> dict[str, Any]:
    """Processor seconds, peak memory of the process and AP of one tool on one load."""
    annotations = make_annotations(images)
    average_precision, seconds = TOOLS[tool](annotations, images, boxes, chunks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "tool": tool,
        "images": images,
        "boxes": images * boxes * chunks,
        "chunks": chunks,
        "seconds": seconds,
        "peak_gb": peak,
        "AP": average_precision,
    }


def make_annotations(images: int) -> dict[str, Any]:
    """An LVIS file as a dict: classes of falling frequency, federated lists, boxes."""
    random = np.random.default_rng(SEED)
    weights = 1 / np.arange(1, CLASSES + 1) ** 0.8
    weights /= weights.sum()
    categories = [
        {"id": k + 1, "name": f"class {k}", "frequency": FREQUENCIES[2 - min(2, k // 450)]}
        for k in range(CLASSES)
    ]
    image_records, annotations = [], []
    for image in range(1, images + 1):
        chosen = random.choice(CLASSES, POSITIVES + NEGATIVES, replace=False, p=weights) + 1
        present, absent = chosen[:POSITIVES], chosen[POSITIVES:]
        open_ended = present[random.random(POSITIVES) < 0.1]
        image_records.append(
            {
                "id": image,
                "neg_category_ids": absent.tolist(),
                "not_exhaustive_category_ids": open_ended.tolist(),
            }
        )
        for category in np.repeat(present, random.integers(1, 4, POSITIVES)).tolist():
            x, y, width, height = random_boxes(random, 1)[0].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                }
            )
    return {"images": image_records, "annotations": annotations, "categories": categories}


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Boxes x, y, width, height within an image: [count, 4]."""
    size = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    corner = random.random((count, 2)) * (np.asarray(SIZE) - np.minimum(size, 400))
    return np.concatenate([corner, size], axis=1)


def make_predictions(
    truth: LVISGroundTruth, boxes: int, chunks: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Per image: id, boxes xyxy [N, 4], scores [N] and class labels [N], float32.

    A third of the boxes lie near annotated ones, most of them with the right class; the classes
    of each chunk get the same number of boxes.
    """
    random = np.random.default_rng(SEED + 1)
    order = np.argsort(truth.boxes.images, kind="stable")
    starts = np.searchsorted(truth.boxes.images[order], truth.boxes.image_ids)
    ends = np.searchsorted(truth.boxes.images[order], truth.boxes.image_ids, "right")
    per_chunk = -(-CLASSES // chunks)
    for image, start, end in zip(truth.boxes.image_ids.tolist(), starts, ends, strict=True):
        count = boxes * chunks
        annotated = order[start:end]
        xywh = random_boxes(random, count)
        chunk = np.repeat(np.arange(chunks), boxes)
        labels = np.minimum(chunk * per_chunk + random.integers(0, per_chunk, count), CLASSES - 1)
        near = random.random(count) < 1 / 3
        source = random.choice(annotated, count)
        shift = random.normal(0, 0.1, (count, 4)) * np.tile(truth.boxes.boxes[source, 2:], 2)
        xywh[near] = (truth.boxes.boxes[source] + shift)[near]
        in_chunk = (truth.boxes.categories[source] - 1) // per_chunk == chunk
        right = near & (in_chunk | (chunks == 1)) & (random.random(count) < 0.7)
        labels[right] = truth.boxes.categories[source][right] - 1
        scores = np.where(right, random.beta(3, 3, count), random.beta(1, 6, count))
        xywh[:, 2:] = np.maximum(xywh[:, 2:], 1)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        yield image, xyxy.astype(np.float32), scores.astype(np.float32), labels


def run_ours(
    annotations: dict[str, Any], images: int, boxes: int, chunks: int
) -> tuple[float, float]:
    """The metric class as a test loop calls it: one image at a time, then the numbers."""
    from llmdet.evaluation.detections import DetectionTable
    from llmdet.evaluation.lvis_ap import cap_per_class, lvis_curves, lvis_summary
    from llmdet.evaluation.topk import TopDetections

    truth = parse_lvis(annotations)
    top = TopDetections(10_000)
    seconds = 0.0
    for image, box, score, label in make_predictions(truth, boxes, chunks):
        start = time.process_time()
        top.add(image, box, score, label)
        seconds += time.process_time() - start
    start = time.process_time()
    image_ids, labels, box, score, _ = top.arrays()
    detections = DetectionTable(image_ids, truth.boxes.category_ids[labels], box, score)
    curves = lvis_curves(truth, cap_per_class(truth, detections))
    average_precision = lvis_summary(truth, curves, -1)["AP"]
    return average_precision, seconds + time.process_time() - start


def make_results(
    truth: LVISGroundTruth, boxes: int, chunks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image ids, category ids, boxes xywh and scores of the best 10,000 of each class."""
    from llmdet.evaluation.topk import TopDetections

    top = TopDetections(10_000)
    for image, box, score, label in make_predictions(truth, boxes, chunks):
        top.add(image, box, score, label)
    image_ids, labels, box, score, _ = top.arrays()
    xywh = box.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return image_ids, truth.boxes.category_ids[labels], xywh, score.astype(np.float64)


def result_records(columns: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
    """COCO result records."""
    names = ("image_id", "category_id", "bbox", "score")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def run_lvis_api(
    annotations: dict[str, Any], images: int, boxes: int, chunks: int
) -> tuple[float, float]:
    """The reference: lvis-api with the cut per class made before."""
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 uses the removed alias
    import tempfile

    from lvis import LVIS, LVISEval, LVISResults

    results = result_records(make_results(parse_lvis(annotations), boxes, chunks))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(annotations, file)
        file.flush()
        truth = LVIS(file.name)
    start = time.process_time()
    evaluator = LVISEval(truth, LVISResults(truth, results, max_dets=-1), "bbox")
    evaluator.params.max_dets = -1
    evaluator.run()
    return float(evaluator.results["AP"]), time.process_time() - start


def run_hotcoco(
    annotations: dict[str, Any], images: int, boxes: int, chunks: int
) -> tuple[float, float]:
    """hotcoco's LVIS mode, without its limit per image."""
    import tempfile

    from hotcoco import COCO, COCOeval

    columns = make_results(parse_lvis(annotations), boxes, chunks)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(annotations, file)
        file.flush()
        truth = COCO(file.name)
    results = np.column_stack([columns[0], columns[2], columns[3], columns[1]])
    start = time.process_time()
    evaluator = COCOeval(truth, truth.load_res(results), "bbox", lvis_style=True)
    evaluator.params.max_dets = [len(results)]
    evaluator.run()
    return float(evaluator.get_results()["AP"]), time.process_time() - start


def run_faster_coco_eval(
    annotations: dict[str, Any], images: int, boxes: int, chunks: int
) -> tuple[float, float]:
    """faster-coco-eval's LVIS mode with 1,000 detections per image and class."""
    from faster_coco_eval import COCO, COCOeval_faster

    columns = make_results(parse_lvis(annotations), boxes, chunks)
    truth = COCO(annotations)
    records = result_records(columns)
    start = time.process_time()
    evaluator = COCOeval_faster(
        truth, truth.loadRes(records), "bbox", lvis_style=True, print_function=lambda *_: None
    )
    evaluator.params.maxDets = [1000]
    evaluator.run()
    return float(evaluator.stats_as_dict["AP_all"]), time.process_time() - start


TOOLS: dict[str, Callable[[dict[str, Any], int, int, int], tuple[float, float]]] = {
    "ours": run_ours,
    "lvis-api": run_lvis_api,
    "hotcoco": run_hotcoco,
    "faster-coco-eval": run_faster_coco_eval,
}


if __name__ == "__main__":
    sys.exit(main())
