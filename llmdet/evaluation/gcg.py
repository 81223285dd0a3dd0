"""Grounded conversation generation: captions whose phrases carry masks (GLaMM)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as mask_utils

from llmdet.datasets.numbers import number_of_id
from llmdet.errors import DataError
from llmdet.evaluation.average_precision import evaluate_detections
from llmdet.evaluation.coco_ap import DEFAULT_MAX_DETS, coco_summary
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, parse_coco
from llmdet.evaluation.res import encode
from llmdet.utils.files import read_json, require

IOU_THRESHOLD = 0.5
SIMILARITY_THRESHOLD = 0.5
CATEGORY = 1  # the only category of the mask annotations

Similarity = Callable[[str, str], float]
Recall = Literal["stop", "continue"]
Unpaired = Literal["left out", "zero"]


@dataclasses.dataclass(frozen=True)
class GCGTruth:
    """Masks and phrases; ``phrases[i]`` belongs to the i-th mask of the image."""

    boxes: GroundTruth
    masks: list[dict[str, Any]]  # RLE of each row of boxes
    phrases: dict[int, list[str]]  # by image id, in the order of the caption file
    captions: dict[int, list[str]]


@dataclasses.dataclass(frozen=True)
class GCGPrediction:
    """What a model said of an image."""

    caption: str
    phrases: list[str]
    masks: list[dict[str, Any]]  # RLE


def read_gcg(path: str | Path) -> GCGTruth:
    """Masks and captions of a split.

    Args:
        path: ``*_gcg_coco_caption_gt.json``, beside which lies ``*_gcg_coco_mask_gt.json``, or a
            folder with one of each; either may be gzipped.
    Raises:
        DataError: a file is missing or broken.
    """
    mask_file, caption_file = _files(Path(path))
    masks, captions = read_json(mask_file), read_json(caption_file)
    phrases: dict[int, list[str]] = {}
    texts: dict[int, list[str]] = {}
    by_image = {annotation["image_id"]: annotation for annotation in captions["annotations"]}
    for image in require(captions, "images", str(caption_file)):
        if image["id"] not in by_image:
            raise DataError(f"{caption_file}: image {image['id']} has no caption")
        annotation = by_image[image["id"]]
        number = number_of_id(image["id"], str(caption_file))
        phrases[number] = require(annotation, "labels", f"{caption_file}: {image['id']}")
        texts[number] = [annotation["caption"]]
    for member, field in (("images", "id"), ("annotations", "image_id")):
        for item in require(masks, member, str(mask_file)):
            item[field] = number_of_id(require(item, field, str(mask_file)), str(mask_file))
    annotations = require(masks, "annotations", str(mask_file))
    return GCGTruth(
        boxes=parse_coco(masks, str(mask_file)),
        masks=[
            encode(require(annotation, "segmentation", f"{mask_file}: annotations[{i}]"), "mask")
            for i, annotation in enumerate(annotations)
        ],
        phrases=phrases,
        captions=texts,
    )


def read_gcg_predictions(path: str | Path) -> dict[int, GCGPrediction]:
    """``{image_id: {caption, phrases, pred_masks}}`` in one file, or a folder of ``ID.json``."""
    path = Path(path)
    if path.is_dir():
        records = {}
        for file in sorted(path.glob("*.json")):
            content = read_json(file)
            records[file.stem] = content if "caption" in content else next(iter(content.values()))
    else:
        records = read_json(path)
    predictions = {}
    for image, record in records.items():
        where = f"{path}: image {image}"
        predictions[number_of_id(image, where)] = GCGPrediction(
            caption=require(record, "caption", where),
            phrases=list(require(record, "phrases", where)),
            masks=[encode(rle, where) for rle in require(record, "pred_masks", where)],
        )
    return predictions


def mask_ap(truth: GCGTruth, predictions: Mapping[int, GCGPrediction]) -> dict[str, float]:
    """COCO mask AP with all scores equal: ties keep the order of masks and of images."""
    rows = [(image, mask) for image in truth.phrases for mask in predictions[image].masks]
    masks = [mask for _, mask in rows]
    images = np.asarray([image for image, _ in rows], np.int64)
    detections = DetectionTable(
        images, np.full(len(rows), CATEGORY), np.zeros((len(rows), 4)), np.ones(len(rows))
    )
    curves = evaluate_detections(
        truth.boxes,
        detections,
        ignored=truth.boxes.crowd,
        max_dets=DEFAULT_MAX_DETS,
        mask_iou=lambda detection, box: _mask_ious(masks, truth, detection, box),
        # one by one: pycocotools 2.0.11 overflows on lists of more than 255 masks
        detection_areas=np.asarray([mask_utils.area(mask) for mask in masks], np.float64),
    )
    return coco_summary(curves)


def mask_miou(
    truth: GCGTruth, predictions: Mapping[int, GCGPrediction], *, unpaired: Unpaired = "left out"
) -> float:
    """Mean over images of the mean IoU of pairs taken best first.

    Args:
        truth: masks.
        predictions: by image id.
        unpaired: masks without a partner, annotated or predicted: officially they are ``left out``
            of the mean, so that saying less costs nothing; ``zero`` counts them as pairs without
            overlap. An image without any pair is 0 either way.
    """
    values = []
    for image in truth.phrases:
        iou = _image_iou(truth, predictions[image], image)
        pairs = []
        while iou.size and iou.max() > 0:
            row, column = np.unravel_index(np.argmax(iou), iou.shape)
            pairs.append(iou[row, column])
            iou = np.delete(np.delete(iou, row, axis=0), column, axis=1)
        if unpaired == "zero":
            pairs += [0.0] * sum(iou.shape)
        values.append(float(np.mean(pairs)) if pairs else 0.0)
    return float(np.mean(values)) if values else 0.0


def mask_recall(
    truth: GCGTruth,
    predictions: Mapping[int, GCGPrediction],
    similarity: Similarity,
    *,
    recall: Recall = "stop",
) -> dict[str, float]:
    """Share of phrases found by a mask with IoU >= 0.5 and a similar phrase.

    Args:
        truth: masks and phrases.
        predictions: by image id.
        similarity: of two phrases, a cosine.
        recall: ``stop`` gives up an image at the best remaining pair of masks that fails either
            threshold, and all of an image whose pair has no phrase, as the official program;
            ``continue`` goes on with the next pair.
    Returns:
        ``mask_recall``, the counts behind it (``TP``, ``actual_positives``), and the number of
        images given up for want of a phrase (``n_images_with_exception``).
    Source: GLaMM (Rasheed et al. 2024, section 5.1) and its program.
    """
    found = total = nameless = 0
    for image, phrases in truth.phrases.items():
        total += len(phrases)
        prediction = predictions[image]
        iou = _image_iou(truth, prediction, image).T  # [annotated, predicted]
        try:
            found += _recalled(iou, phrases, prediction.phrases, similarity, recall)
        except _MaskWithoutPhraseError:
            nameless += 1
    return {
        "mask_recall": found / total if total else 0.0,
        "TP": found,
        "actual_positives": total,
        "n_images_with_exception": nameless,
    }


def embedding_similarity(embeddings: Mapping[str, Sequence[float]]) -> Similarity:
    """Cosine of the embeddings of two phrases; a phrase without one is a DataError."""

    def similarity(first: str, second: str) -> float:
        vectors = []
        for phrase in (first, second):
            if phrase not in embeddings:
                raise DataError(f"there is no embedding of the phrase {phrase!r}")
            vectors.append(np.asarray(embeddings[phrase], np.float64))
        norm = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
        return float(vectors[0] @ vectors[1]) / norm if norm else 0.0

    return similarity


class _MaskWithoutPhraseError(Exception):
    """A mask to be paired has no phrase: the official program loses the whole image."""


def _recalled(
    iou: np.ndarray,
    wanted: Sequence[str],
    said: Sequence[str],
    similarity: Similarity,
    recall: Recall,
) -> int:
    found = 0
    iou = iou.copy()
    while iou.size and iou.max() >= IOU_THRESHOLD:
        row, column = (int(index) for index in np.unravel_index(np.argmax(iou), iou.shape))
        named = row < len(wanted) and column < len(said)
        if not named and recall == "stop":
            raise _MaskWithoutPhraseError
        if named and similarity(wanted[row], said[column]) >= SIMILARITY_THRESHOLD:
            found += 1
            iou[row, :] = 0
            iou[:, column] = 0
        elif recall == "stop":
            break
        else:
            iou[row, column] = 0
    return found


def _image_iou(truth: GCGTruth, prediction: GCGPrediction, image: int) -> np.ndarray:
    """IoU of predicted and annotated masks of an image: [N, M]."""
    rows = np.flatnonzero(truth.boxes.images == image)
    annotated = [truth.masks[row] for row in rows]
    if not prediction.masks or not annotated:
        return np.zeros((len(prediction.masks), len(annotated)))
    return mask_utils.iou(prediction.masks, annotated, [0] * len(annotated))


def _mask_ious(
    masks: list[dict[str, Any]], truth: GCGTruth, detection: np.ndarray, box: np.ndarray
) -> np.ndarray:
    ious = np.zeros(len(detection))
    for index, (row, column) in enumerate(zip(detection, box, strict=True)):
        crowd = [int(truth.boxes.crowd[column])]
        ious[index] = mask_utils.iou([masks[row]], [truth.masks[column]], crowd)[0, 0]
    return ious


def _files(path: Path) -> tuple[Path, Path]:
    """The files of masks and of captions."""
    if path.is_dir():
        return _only(path, "*gcg_coco_mask_gt.json*"), _only(path, "*gcg_coco_caption_gt.json*")
    if "_caption_" not in path.name:
        raise DataError(f"{path}: give *_gcg_coco_caption_gt.json, or the folder of a split")
    return path.with_name(path.name.replace("_caption_", "_mask_")), path


def _only(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise DataError(f"{folder} must hold one file {pattern}, it has {len(files)}")
    return files[0]
