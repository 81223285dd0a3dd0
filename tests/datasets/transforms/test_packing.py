"""What samples keep at the end of a pipeline."""

import numpy as np
import pytest

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
