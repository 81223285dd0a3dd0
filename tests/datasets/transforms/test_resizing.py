"""Our resizing against mmdet's, and a sentence where a side would vanish."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope

from llmdet.datasets.transforms import FixScaleResize, Resize
from llmdet.errors import DataError
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
@pytest.mark.parametrize("kind", ["FixScaleResize", "Resize"])
def test_pixels_boxes_masks_and_numbers_are_those_of_mmdet(kind, size, settings):
    given = sample(*size, HorizontalBoxes(corners()))
    ours = TRANSFORMS.build({**settings, "type": kind})(copy.deepcopy(given))
    theirs = TRANSFORMS.build({**settings, "type": f"mmdet.{kind}"})(copy.deepcopy(given))
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


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("kind", [FixScaleResize, Resize])
@pytest.mark.parametrize("shape", [(10, 2000, 3), (2000, 10, 3)])
def test_a_picture_too_narrow_for_the_scale_is_named(kind, backend, shape):
    resize = kind(scale=(64, 96), keep_ratio=True, backend=backend)
    with pytest.raises(DataError, match=r"strip.png has (2000 x 10|10 x 2000) pixels; scaled to"):
        resize({"img": np.zeros(shape, np.uint8), "img_path": "strip.png"})


def test_the_random_choice_of_scales_uses_it_too():
    init_default_scope("llmdet")
    chosen = TRANSFORMS.build({"type": "RandomChoiceResize", "scales": [(64, 96)]})
    assert isinstance(chosen.resize, Resize)
