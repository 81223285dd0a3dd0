"""OmniLabel AP: one pooled curve over free-form descriptions, one over category names."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.average_precision import PrecisionRecall, evaluate_detections
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth
from llmdet.evaluation.predictions import ImagePredictions
from llmdet.utils.files import read_json, require

logger = logging.getLogger(__name__)

MAX_DETS = 100  # per image and description
STABILISER = 1e-5  # in the denominator of the harmonic mean
DESCRIPTION = "object_description"
ONE_CLASS = 1  # category id of the pooled curve
WORDS = {"descr-s": (0, 3), "descr-m": (4, 8), "descr-l": (9, 10**6)}


@dataclasses.dataclass(frozen=True)
class OmniLabelTruth:
    """P pairs of an image and a description of its label space, and the boxes of each pair."""

    pairs: dict[tuple[int, int], int]  # (image id, description id) -> pair number, in order
    is_description: np.ndarray  # [P] bool, free-form description (else a category name)
    has_boxes: np.ndarray  # [P] bool, the description refers to a box of the image
    words: np.ndarray  # [P] number of words of the description
    boxes: GroundTruth  # with pair numbers as image ids and one class


def read_omnilabel(path: str | Path) -> OmniLabelTruth:
    """An OmniLabel annotation file."""
    return parse_omnilabel(read_json(path), str(path))


def parse_omnilabel(data: Mapping[str, Any], where: str = "annotations") -> OmniLabelTruth:
    """OmniLabel's JSON as pairs.

    Raises:
        DataError: a list or field is missing.
    """
    images = sorted(image["id"] for image in require(dict(data), "images", where))
    spaces: dict[int, list[Mapping[str, Any]]] = {image: [] for image in images}
    for description in require(dict(data), "descriptions", where):
        for image in require(dict(description), "image_ids", f"{where}: description"):
            if image in spaces:
                spaces[image].append(description)
    pairs: dict[tuple[int, int], int] = {}
    kinds, words = [], []
    for image in images:
        for description in spaces[image]:
            pairs[image, description["id"]] = len(pairs)
            kinds.append(description["anno_info"]["type"] == DESCRIPTION)
            words.append(len(description["text"].split()))
    boxes = _pair_boxes(require(dict(data), "annotations", where), pairs, where)
    return OmniLabelTruth(
        pairs=pairs,
        is_description=np.asarray(kinds, bool),
        has_boxes=np.bincount(boxes.images, minlength=len(pairs)) > 0,
        words=np.asarray(words, np.int64),
        boxes=boxes,
    )


def parse_omnilabel_results(
    results: Iterable[Mapping[str, Any]], truth: OmniLabelTruth, where: str = "predictions"
) -> DetectionTable:
    """Result records ``{image_id, bbox: xywh, description_ids, scores}`` by pair.

    Scores of descriptions that are not in the image's label space are left out, as officially.

    Raises:
        DataError: a record lacks a field or has unequal numbers of descriptions and scores.
    """
    rows, boxes, scores = [], [], []
    outside = 0
    for index, record in enumerate(results):
        place = f"{where}[{index}]"
        image = require(dict(record), "image_id", place)
        descriptions = require(dict(record), "description_ids", place)
        values = require(dict(record), "scores", place)
        if len(descriptions) != len(values):
            raise DataError(
                f"{place} has {len(descriptions)} description_ids and {len(values)} scores"
            )
        for description, score in zip(descriptions, values, strict=True):
            pair = truth.pairs.get((image, description))
            if pair is None:
                outside += 1
                continue
            rows.append(pair)
            boxes.append(require(dict(record), "bbox", place))
            scores.append(score)
    if outside:
        logger.info("%s: %d scores are outside the label space of their image", where, outside)
    return DetectionTable(
        np.asarray(rows, np.int64),
        np.full(len(rows), ONE_CLASS, np.int64),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(scores, np.float64),
        "xywh",
    )


def omnilabel_ap(truth: OmniLabelTruth, detections: DetectionTable) -> dict[str, float]:
    """OmniLabel's metrics by name: ``METRIC GROUP IOU``, such as ``AP descr 0.50:0.95``.

    The first is the harmonic mean of the AP of descriptions and of categories. A group without
    boxes is -1.

    Args:
        truth: pairs of image and description.
        detections: by pair number, see `parse_omnilabel_results`.
    Source: OmniLabel (Schulter et al. 2023, section 4) and its tools.
    """
    groups = _groups(truth)
    curves = {name: _pooled(truth, detections, chosen) for name, chosen in groups.items()}
    values = {f"AP {name} 0.50:0.95": curve.mean_precision() for name, curve in curves.items()}
    for name in ("descr", "categ"):
        for iou in (0.5, 0.75):
            values[f"AP {name} {iou:.2f}"] = curves[name].mean_precision(iou=iou)
    for name in ("descr", "categ"):
        values[f"AR {name} 0.50:0.95"] = curves[name].mean_recall()
    first, second = values["AP categ 0.50:0.95"], values["AP descr 0.50:0.95"]
    mean = -1.0
    if first > -1 and second > -1:
        mean = (2 * first * second) / (first + second + STABILISER)
    return {"AP hm(descr,categ) 0.50:0.95": mean, **values}


def box_counts(truth: OmniLabelTruth, detections: DetectionTable) -> dict[str, int]:
    """Boxes to be found in each group; -1 where a group has neither boxes nor detections."""
    used = np.union1d(truth.boxes.images, detections.image_ids)
    counts = {}
    for name, chosen in _groups(truth).items():
        inside = chosen[truth.boxes.images] & ~truth.boxes.crowd
        counts[name] = int(inside.sum()) if chosen[used].any() else -1
    return {"hm(descr,categ)": counts["categ"] + counts["descr"], **counts}


def results_from_predictions(images: Iterable[ImagePredictions]) -> Iterator[dict[str, Any]]:
    """Result records of a prediction file whose labels index descriptions (``category_ids``).

    Raises:
        DataError: an image does not name the descriptions of its labels.
    """
    for image in sorted(images, key=lambda image: image.image_id):
        if image.category_ids is None:
            raise DataError(
                f"image {image.image_id} has no category_ids: OmniLabel needs the description ids"
            )
        boxes = image.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for row, label in enumerate(image.labels.tolist()):
            yield {
                "image_id": image.image_id,
                "bbox": boxes[row].tolist(),
                "description_ids": [image.category_ids[label]],
                "scores": [float(image.scores[row])],
            }


def _groups(truth: OmniLabelTruth) -> dict[str, np.ndarray]:
    groups = {
        "categ": ~truth.is_description,
        "descr": truth.is_description,
        "descr-pos": truth.is_description & truth.has_boxes,
    }
    for name, (low, high) in WORDS.items():
        groups[name] = truth.is_description & (truth.words >= low) & (truth.words <= high)
    return groups


def _pooled(
    truth: OmniLabelTruth, detections: DetectionTable, chosen: np.ndarray
) -> PrecisionRecall:
    boxes = truth.boxes.select(chosen[truth.boxes.images])
    return evaluate_detections(
        boxes,
        detections.select(chosen[detections.image_ids]),
        ignored=boxes.crowd,
        max_dets=(MAX_DETS,),
    )


def _pair_boxes(
    annotations: Sequence[Mapping[str, Any]], pairs: dict[tuple[int, int], int], where: str
) -> GroundTruth:
    rows, boxes, ids, crowd = [], [], [], []
    for index, annotation in enumerate(annotations):
        place = f"{where}: annotations[{index}]"
        image = require(dict(annotation), "image_id", place)
        for description in require(dict(annotation), "description_ids", place):
            pair = pairs.get((image, description))
            if pair is None:
                continue
            rows.append(pair)
            boxes.append(require(dict(annotation), "bbox", place))
            ids.append(annotation.get("id", index + 1))
            crowd.append(bool(annotation.get("iscrowd", 0)))
    xywh = np.asarray(boxes, np.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=np.arange(len(pairs)),
        category_ids=np.asarray([ONE_CLASS]),
        category_names=("object",),
        ids=np.asarray(ids, np.int64),
        images=np.asarray(rows, np.int64),
        categories=np.full(len(rows), ONE_CLASS, np.int64),
        boxes=xywh,
        areas=np.maximum(0, xywh[:, 2] * xywh[:, 3]),
        crowd=np.asarray(crowd, bool),
        ignore=np.zeros(len(rows), bool),
    )
