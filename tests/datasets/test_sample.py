"""The typed sample, made by our pipelines or from mmdet's fields."""

import pytest
from mmdet.structures import DetDataSample

from llmdet.datasets.sample import GroundingSample, grounding_of
from llmdet.errors import DataError
from llmdet.prompts import Classes, Expression


def test_a_sample_of_mmdets_pipelines_is_read_from_its_fields():
    sample = DetDataSample(
        metainfo={
            "text": "left dog",
            "tokens_positive": -1,
            "sent_ids": [7],
            "phrases": {0: {"phrase": ["dog", "left dog"]}, 1: {"phrase": "cat"}},
            "phrase_ids": [0, 1, 0],
            "tags": ["dog"],
            "dataset_mode": "VG",
        }
    )
    read = grounding_of(sample)
    assert read.prompt == Expression("left dog")
    assert read.category_ids == (7,)
    assert read.phrases == ("dog / left dog", "cat")
    assert read.phrase_ids == (0, 1, 0)
    assert (read.tags, read.dataset_mode) == (("dog",), "VG")
    assert len(read.regions) == 0
    assert grounding_of(sample.to_dict()).prompt == read.prompt


def test_a_sample_may_have_no_prompt():
    assert grounding_of(DetDataSample()).prompt is None
    assert grounding_of(DetDataSample()).category_ids is None


def test_a_sample_that_is_typed_already_is_taken_as_it_is():
    typed = GroundingSample(Classes(("cat",)))
    sample = DetDataSample(metainfo={"text": "a dog", "grounding": typed})
    assert grounding_of(sample) is typed


def test_a_prompt_that_cannot_be_read_is_an_error_that_names_the_image():
    sample = DetDataSample(metainfo={"img_path": "a.jpg", "text": "dog", "tokens_positive": [[]]})
    with pytest.raises(DataError, match=r"^a\.jpg: tokens_positive of 'dog'"):
        grounding_of(sample)
