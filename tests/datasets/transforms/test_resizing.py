"""Our resizing of test pipelines against mmdet's."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from llmdet.registry import TRANSFORMS


def sample(height: int, width: int, boxes: object) -> dict:
    random = np.random.default_rng(0)
    return {
        "img": random.integers(0, 255, (height, width, 3), np.uint8),
        "gt_bboxes": boxes,
        "gt_masks": BitmapMasks(random.integers(0, 2, (2, height, width), np.uint8), height, width),
        "gt_seg_map": random.integers(0, 9, (height, width), np.uint8),
    }


def corners() -> np.ndarray:
    return np.array([[1, 2, 30, 20], [-5, 0, 400, 300]], np.float32)


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (100, 41)])
@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (64, 96), "keep_ratio": True, "backend": "pillow"},
        {"scale": (96, 64), "keep_ratio": True, "interpolation": "bicubic"},
        {"scale": (64, 96)},
        {"scale_factor": 1.7, "keep_ratio": True, "clip_object_border": False},
    ],
)
def test_pixels_boxes_masks_and_numbers_are_those_of_mmdet(size, settings):
    given = sample(*size, HorizontalBoxes(corners()))
    settings = {"type": "FixScaleResize", **settings}
    ours = TRANSFORMS.build(settings)(copy.deepcopy(given))
    theirs = TRANSFORMS.build({**settings, "type": "mmdet.FixScaleResize"})(copy.deepcopy(given))
    assert set(ours) == set(theirs)
    for key in ("img", "gt_seg_map", "homography_matrix"):
        np.testing.assert_array_equal(ours[key], theirs[key])
        assert ours[key].dtype == theirs[key].dtype
    np.testing.assert_array_equal(ours["gt_masks"].masks, theirs["gt_masks"].masks)
    assert torch.equal(ours["gt_bboxes"].tensor, theirs["gt_bboxes"].tensor)
    for key in ("img_shape", "scale", "scale_factor", "keep_ratio"):
        assert ours[key] == theirs[key]


def test_boxes_may_be_a_plain_array():
    settings = {"type": "FixScaleResize", "scale": (64, 96), "keep_ratio": True}
    ours = TRANSFORMS.build(settings)(sample(37, 53, corners()))
    theirs = TRANSFORMS.build({**settings, "type": "mmdet.FixScaleResize"})(
        sample(37, 53, corners())
    )
    np.testing.assert_array_equal(ours["gt_bboxes"], theirs["gt_bboxes"])
