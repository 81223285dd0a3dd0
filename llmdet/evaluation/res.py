"""Referring segmentation: cIoU and gIoU."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from pycocotools import mask as mask_utils

from llmdet.errors import DataError
from llmdet.utils.files import require

STABILISER = 1e-5  # of the official program, in the denominators of gIoU

Empty = Literal["one", "zero"]


def res_scores(images: Iterable[Mapping[str, Any]], *, empty: Empty = "one") -> dict[str, float]:
    """Cumulative IoU and mean IoU of predicted masks.

    Args:
        images: each with ``refs`` of ``gt`` and ``pred``, COCO's compressed RLE.
        empty: IoU of an empty prediction where nothing answers to the expression: ``one`` as
            GLaMM's program and gRefCOCO (gIoU), ``zero`` as mmdet's mIoU.
    Returns:
        ``gIoU`` (mean over expressions) and ``cIoU`` (summed overlap over summed union).
    Raises:
        DataError: there is no expression, or a mask cannot be decoded.
    """
    overlaps, unions = [], []
    for image in images:
        where = f"image {image.get('image_id')}"
        for index, reference in enumerate(require(dict(image), "refs", where)):
            areas = _overlap_and_union(reference, f"{where}, expression {index}")
            overlaps.append(areas[0])
            unions.append(areas[1])
    if not overlaps:
        raise DataError("there are no expressions")
    overlap, union = np.asarray(overlaps, np.float64), np.asarray(unions, np.float64)
    if empty == "one":
        iou = overlap / (union + STABILISER) + (union == 0)
        mean = float(iou.sum()) / (len(union) + STABILISER)
    else:
        mean = float(np.divide(overlap, union, out=np.zeros_like(union), where=union > 0).mean())
    total = float(union.sum())
    return {"gIoU": mean, "cIoU": float(overlap.sum()) / total if total else 0.0}


def _overlap_and_union(reference: Mapping[str, Any], where: str) -> tuple[float, float]:
    masks = [require(dict(reference), name, where) for name in ("gt", "pred")]
    if masks[0]["size"] != masks[1]["size"]:
        raise DataError(f"{where}: masks of sizes {masks[0]['size']} and {masks[1]['size']}")
    encoded = [encode(mask, where) for mask in masks]
    return (
        float(mask_utils.area(mask_utils.merge(encoded, intersect=True))),
        float(mask_utils.area(mask_utils.merge(encoded))),
    )


def encode(rle: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A COCO RLE as pycocotools wants it (``counts`` as bytes).

    Raises:
        DataError: fields are missing.
    """
    counts = require(dict(rle), "counts", where)
    size = require(dict(rle), "size", where)
    if isinstance(counts, list):
        return mask_utils.frPyObjects({"size": size, "counts": counts}, *size)
    return {"size": size, "counts": counts.encode() if isinstance(counts, str) else counts}
