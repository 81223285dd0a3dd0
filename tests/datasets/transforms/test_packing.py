"""What samples keep at the end of a pipeline."""

import numpy as np
import pytest
from llmdet.evaluation.metrics.base import label_ids

from llmdet.datasets.transforms.packing import META_KEYS
from llmdet.errors import ConfigError
from llmdet.registry import TRANSFORMS


def packed(**settings):
    pack = TRANSFORMS.build({"type": "PackGroundingInputs", **settings})
    results = {
        "img": np.zeros((4, 6, 3), np.uint8),
        "img_shape": (4, 6),
        "text": "red circle",
        "image_caption": None,
        "category_ids": [3],
        "mine": 1,
        "annotation": "large",
    }
    return pack(results)


def test_what_models_and_metrics_read_is_kept_and_nothing_else():
    out = packed()
    assert out["inputs"].shape == (3, 4, 6)
    assert out["data_samples"].metainfo == {
        "img_shape": (4, 6),
        "text": "red circle",
        "image_caption": None,
        "category_ids": [3],
    }


def test_further_keys_can_be_asked_for():
    assert packed(more_keys=["mine"])["data_samples"].mine == 1
    with pytest.raises(ConfigError, match=r"more_keys is a list, such as \['mine'\]"):
        packed(more_keys="mine")


@pytest.mark.parametrize("name", ["category_ids", "sent_ids"])
def test_metrics_find_the_categories_of_an_image(name):
    assert name in META_KEYS
    assert label_ids({name: [3, 5]}).tolist() == [3, 5]
