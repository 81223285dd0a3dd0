"""What samples keep at the end of a pipeline."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from llmdet.datasets.sample import GroundingSample, grounding_of
from llmdet.errors import ConfigError
from llmdet.prompts import Sentence
from llmdet.registry import TRANSFORMS


def packed(**settings):
    pack = TRANSFORMS.build({"type": "PackGroundingInputs", **settings})
    results = {
        "img": np.zeros((4, 6, 3), np.uint8),
        "img_shape": (4, 6),
        "text": "red circle",
        "category_ids": [3],
        "mine": 1,
        "annotation": "large",
    }
    return pack(results)


def test_what_models_and_metrics_read_is_kept_and_nothing_else():
    out = packed()
    assert out["inputs"].shape == (3, 4, 6)
    sample = out["data_samples"]
    assert set(sample.metainfo) == {"img_shape", "grounding"}
    assert isinstance(sample.grounding, GroundingSample)
    assert sample.grounding.prompt == Sentence("red circle")
    assert grounding_of(sample) is grounding_of(sample.to_dict()) is sample.grounding


def test_further_keys_can_be_asked_for():
    assert packed(more_keys=["mine"])["data_samples"].mine == 1
    with pytest.raises(ConfigError, match=r"more_keys is a list, such as \['mine'\]"):
        packed(more_keys="mine")


@pytest.mark.parametrize("flags", [None, [False, True, False]])
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_and_annotations_are_packed_as_by_mmdet(flags, flip):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    results = {
        "img": image[:, ::-1] if flip else image,
        "img_shape": (4, 6),
        "text": "red circle",
        "gt_bboxes": HorizontalBoxes(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "gt_bboxes_labels": np.array([2, 0, 1]),
        "gt_masks": BitmapMasks(np.ones((3, 4, 6), np.uint8), 4, 6),
    }
    if flags is not None:
        results["gt_ignore_flags"] = np.array(flags)
    ours = TRANSFORMS.build({"type": "PackGroundingInputs"})(results)
    theirs = TRANSFORMS.build({"type": "mmdet.PackDetInputs", "meta_keys": ["img_shape"]})(results)
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert ours["inputs"].is_contiguous()
    for name in ("gt_instances", "ignored_instances"):
        one, other = ours["data_samples"].get(name), theirs["data_samples"].get(name)
        assert one.keys() == other.keys()
        if "bboxes" in one:
            assert torch.equal(one.bboxes.tensor, other.bboxes.tensor)
            assert torch.equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.masks.masks, other.masks.masks)


def test_a_grey_picture_has_one_channel():
    pack = TRANSFORMS.build({"type": "PackGroundingInputs"})
    assert pack({"img": np.zeros((4, 6), np.uint8), "text": "a"})["inputs"].shape == (1, 4, 6)
