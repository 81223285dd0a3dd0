"""IoU and generalised IoU between all boxes of one image."""

import numpy as np


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every box with every other: [N, M] float64.

    Args:
        first: [N, 4] x1, y1, x2, y2.
        second: [M, 4] x1, y1, x2, y2.
    """
    overlap, union = _overlap_and_union(first, second)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def pairwise_giou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Generalised IoU of every box with every other: [N, M] float64.

    Args:
        first: [N, 4] x1, y1, x2, y2.
        second: [M, 4] x1, y1, x2, y2.
    Source: Rezatofighi et al. 2019.
    """
    overlap, union = _overlap_and_union(first, second)
    low = np.minimum(first[:, None, :2], second[None, :, :2])
    high = np.maximum(first[:, None, 2:], second[None, :, 2:])
    hull = np.prod(np.maximum(high - low, 0), axis=2)
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou - np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)


def _overlap_and_union(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.maximum(high - low, 0), axis=2)
    union = box_area(first)[:, None] + box_area(second)[None] - overlap
    return overlap, union


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Width times height of boxes [N, 4] x1, y1, x2, y2: [N]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
