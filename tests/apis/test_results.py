import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.apis.results import ImageDetections, save_prediction
from llmdet.errors import DataError


def sample(scores):
    data = DetDataSample()
    count = len(scores)
    data.pred_instances = InstanceData(
        bboxes=torch.arange(4.0 * count).reshape(count, 4),
        scores=torch.tensor(scores),
        labels=torch.arange(count),
        label_names=[f"name {index}" for index in range(count)],
    )
    return data


@given(st.lists(st.floats(0, 1, width=32), max_size=20), st.floats(0, 1))
def test_boxes_are_sorted_and_cut_by_score_and_keep_their_labels(scores, threshold):
    found = ImageDetections.from_sample(sample(scores), threshold)
    expected = sorted((s for s in scores if s >= threshold), reverse=True)
    assert found.scores.tolist() == expected
    for box, score, label, name in zip(
        found.bboxes, found.scores, found.labels, found.label_names, strict=True
    ):
        assert scores[label] == score
        assert box.tolist() == [4 * label, 4 * label + 1, 4 * label + 2, 4 * label + 3]
        assert name == f"name {label}"


def test_a_box_at_the_threshold_stays():
    assert len(ImageDetections.from_sample(sample([0.5, 0.25]), 0.5)) == 1


def test_nothing_found_is_four_empty_lists():
    found = ImageDetections.from_sample(sample([]), 0.3)
    assert found.to_dict() == {"labels": [], "scores": [], "bboxes": [], "label_names": []}
    assert found.bboxes.shape == (0, 4)


def test_the_dictionary_is_plain_json():
    prediction = ImageDetections.from_sample(sample([0.5]), 0.3).to_dict()
    assert json.loads(json.dumps(prediction)) == {
        "labels": [0],
        "scores": [0.5],
        "bboxes": [[0.0, 1.0, 2.0, 3.0]],
        "label_names": ["name 0"],
        "best_score": 0.5,
    }


def test_the_best_score_below_the_threshold_is_known():
    found = ImageDetections.from_sample(sample([0.25, 0.5]), 0.9)
    assert len(found) == 0
    assert found.to_dict()["best_score"] == 0.5


def test_a_caption_that_repeats_the_name_is_not_written_twice():
    found = replace(
        ImageDetections.from_sample(sample([0.5, 0.25]), 0.0), captions=("Name 0.", "a dog")
    )
    assert found.texts() == ["name 0", "name 1: a dog"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/preds/a\.json cannot be written"):
        save_prediction({}, tmp_path / "file" / "preds" / "a.json")
