from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData

from llmdet.datasets.inspection import (
    build_dataset,
    class_names,
    leaf_datasets,
    load_samples,
    seen_sample,
    spread_indices,
)
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import ask_of_image, ask_of_region


def packed(wrap=HorizontalBoxes, labels=(2, 0), **meta: Any) -> dict[str, Any]:
    sample = DetDataSample(metainfo={"img_path": "a.jpg", **meta})
    boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 3.0, 3.0]])
    sample.gt_instances = InstanceData(bboxes=wrap(boxes), labels=torch.tensor(labels))
    image = torch.zeros(3, 4, 7, dtype=torch.uint8)
    image[0] = 200  # blue in BGR
    return {"inputs": image, "data_samples": sample}


TEXT = {"text": "a dog. a cat. a cow. ", "tokens_positive": {0: [[2, 5]], 2: [[14, 15], [16, 19]]}}


@pytest.mark.parametrize("wrap", [HorizontalBoxes, lambda boxes: boxes])
def test_a_packed_sample_becomes_a_picture_with_named_boxes(wrap) -> None:
    seen = seen_sample(packed(wrap, **TEXT), 5)
    assert seen.index == 5
    assert seen.image.shape == (4, 7, 3)
    assert seen.image[0, 0].tolist() == [0, 0, 200]
    np.testing.assert_array_equal(seen.boxes, [[1, 2, 5, 6], [0, 0, 3, 3]])
    assert seen.phrases == ("a / cow", "dog")
    assert seen.caption is None
    assert seen.region_captions == {}


def test_what_the_language_model_will_be_taught_is_shown() -> None:
    seen = seen_sample(
        packed(
            **TEXT,
            conversations=[ask_of_image("A dog and a cow."), ask_of_region(1, "Dog.")],
        ),
        0,
    )
    assert seen.caption == "A dog and a cow."
    assert seen.region_captions == {1: "Dog."}


@pytest.mark.parametrize("text", [["dog", "cat", "cow"], {"0": "dog", "1": "cat", "2": "cow"}])
def test_class_names_name_boxes_where_there_are_no_spans(text) -> None:
    seen = seen_sample(packed(text=text), 0)
    assert seen.phrases == ("cow", "dog")
    assert seen.text == "dog. cat. cow"


def test_a_label_without_words_is_an_error() -> None:
    meta = {**TEXT, "tokens_positive": {0: [[2, 5]]}}
    with pytest.raises(DataError, match=r"a\.jpg: label\(s\) \[2\] have no words in the prompt"):
        seen_sample(packed(**meta), 0)


class Leaf:
    metainfo = {"classes": ("a",)}  # noqa: RUF012

    def prepare_data(self, index: int) -> dict[str, Any] | None:
        return None if index == 1 else packed(**TEXT)


class Wrapper:
    def __init__(self, *parts: Any, inner: Any = None) -> None:
        self.datasets = parts
        self.dataset = inner


def test_data_sets_inside_wrappers_are_found() -> None:
    first, second, third = Leaf(), Leaf(), Leaf()
    tree = Wrapper(first, Wrapper(second), Wrapper(inner=third))
    assert leaf_datasets(tree) == [first, second, third]
    assert leaf_datasets(first) == [first]
    assert class_names(first) == ("a",)
    assert class_names(object()) is None


def test_filtered_samples_are_told_apart() -> None:
    kinds = [sample is None for sample in load_samples(Leaf(), [0, 1, 2])]
    assert kinds == [False, True, False]


@pytest.mark.parametrize(
    ("length", "number", "expected"),
    [(10, 3, [0, 4, 9]), (2, 5, [0, 1]), (0, 5, []), (100, 1, [0]), (5, 5, [0, 1, 2, 3, 4])],
)
def test_indices_are_spread_over_the_data_set(length, number, expected) -> None:
    assert spread_indices(length, number) == expected


def test_a_config_without_the_loader_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there is no val_dataloader"):
        build_dataset(Config({"train_dataloader": {}}), "val")
