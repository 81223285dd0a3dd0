"""Which of several boxes stay: overlapping ones, and those that a look-alike claims."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_iou
from torchvision.ops import nms as torchvision_nms


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Keep the best of boxes that overlap, whatever their classes.

    Args:
        boxes: [N, 4] float32 xyxy.
        scores: [N] float32.
        iou: boxes that overlap a better one by more than this go.

    Returns:
        [n] int64, positions of what stays, best first.
    """
    kept = torchvision_nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    return kept.numpy()


def unclaimed(
    boxes: np.ndarray, scores: np.ndarray, negative: np.ndarray, iou: float
) -> np.ndarray:
    """The boxes that no better box of an unwanted class lies on.

    Args:
        boxes: [N, 4] float32 xyxy.
        scores: [N] float32.
        negative: [N] bool, True for boxes of unwanted classes.
        iou: an overlap of more than this claims a box.

    Returns:
        [n] int64, positions of wanted boxes that stay, in their order.
    """
    wanted = np.flatnonzero(~negative)
    if not negative.any() or not len(wanted):
        return wanted
    overlap = box_iou(torch.from_numpy(boxes[wanted]), torch.from_numpy(boxes[negative])).numpy()
    better = scores[negative][None] > scores[wanted][:, None]
    return wanted[~((overlap > iou) & better).any(axis=1)]
