import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from llmdet.apis.questions import Question
from llmdet.apis.reading import Request, read_found
from llmdet.apis.results import Detection, Picture, Results
from llmdet.errors import DataError
from llmdet.prompts import Classes

PICTURE = Picture(np.zeros((60, 100, 3), np.uint8), 100, 60)


def read(scores, threshold=0.0):
    """What is read of boxes 4 k, ..., 4 k + 3 with these scores and the names 0, 1, 2 ..."""
    count = len(scores)
    names = [f"name {index}" for index in range(count)]
    found = InstanceData(
        bboxes=np.arange(4.0 * count, dtype=np.float32).reshape(count, 4),
        scores=np.array(scores, np.float32),
        labels=np.arange(count),
        label_names=names,
    )
    question = Question(Classes(tuple(names)), (), tuple(names))
    return read_found(found, PICTURE, question, Request(threshold=threshold))


@given(st.lists(st.floats(0, 1, width=32), max_size=20), st.floats(0, 1))
def test_boxes_are_sorted_and_cut_by_score_and_keep_their_labels(scores, threshold):
    found = read(scores, threshold)
    expected = sorted((s for s in scores if s >= threshold), reverse=True)
    assert found.scores.tolist() == expected
    for detection in found:
        assert scores[detection.label] == detection.score
        assert detection.box == tuple(4.0 * detection.label + np.arange(4))
        assert detection.name == f"name {detection.label}"


def test_a_box_at_the_threshold_stays():
    assert len(read([0.5, 0.25], 0.5)) == 1


def test_nothing_found_is_four_empty_lists():
    found = read([])
    assert found.to_dict() == {
        "width": 100, "height": 60, "labels": [], "scores": [], "bboxes": [], "label_names": []
    }  # fmt: skip
    assert found.boxes.shape == (0, 4)
    assert repr(found) == "Results(0 detections in an array, 100 x 60 pixels)"
    assert found.plot().size[0] > 100  # enlarged, so that labels would be legible


def test_the_dictionary_is_plain_json():
    assert json.loads(json.dumps(read([0.5]).to_dict())) == {
        "width": 100,
        "height": 60,
        "labels": [0],
        "scores": [0.5],
        "bboxes": [[0.0, 1.0, 2.0, 3.0]],
        "label_names": ["name 0"],
        "best_score": 0.5,
    }


def test_positions_slices_and_masks_choose_detections():
    found = read([0.25, 0.5, 0.75])
    assert found[0] == Detection((8.0, 9.0, 10.0, 11.0), 0.75, 2, "name 2")
    assert found[-1] == list(found)[-1]
    for chosen in (found[:2], found[found.scores > 0.4], found[[0, 1]]):
        assert isinstance(chosen, Results)
        assert chosen.names == ["name 2", "name 1"]
        assert chosen.scores.tolist() == [0.75, 0.5]
    with pytest.raises(IndexError):
        found[3]


def test_rows_of_coco_have_the_categories_that_are_given():
    found = read([0.25, 0.5])
    row = {"image_id": 7, "category_id": 1, "bbox": [4.0, 5.0, 2.0, 2.0], "score": 0.5}
    assert found.to_coco(7)[0] == row
    assert [row["category_id"] for row in found.to_coco(7, [10, 20])] == [20, 10]
    by_name = {"name 0": 3, "name 1": 4}
    assert [row["category_id"] for row in found.to_coco(7, by_name)] == [4, 3]
    with pytest.raises(DataError, match="1 entries and none for label 1, 'name 1'"):
        found.to_coco(7, [10])


def test_supervision_and_pandas_get_what_they_want(monkeypatch):
    found = replace(read([0.25, 0.5]), captions=["a dog", "a cat"])
    detections = found.to_supervision()
    np.testing.assert_array_equal(detections.xyxy, found.boxes)
    np.testing.assert_array_equal(detections.confidence, found.scores)
    assert detections.class_id.tolist() == [1, 0]
    assert detections.data["class_name"].tolist() == ["name 1", "name 0"]
    table = found.to_pandas()
    assert list(table) == ["x1", "y1", "x2", "y2", "score", "label", "name", "caption"]
    assert table.iloc[0].to_dict() == {
        "x1": 4.0, "y1": 5.0, "x2": 6.0, "y2": 7.0,
        "score": 0.5, "label": 1, "name": "name 1", "caption": "a dog",
    }  # fmt: skip
    given = replace(found, scores=None, captions=None)
    assert given.to_supervision().confidence is None
    assert "score" not in given.to_pandas()
    for package, convert in (("supervision", found.to_supervision), ("pandas", found.to_pandas)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=f"pip install {package}"):
            convert()


def test_the_representation_lists_the_best():
    text = repr(read([index / 100 for index in range(50)]))
    assert text.splitlines()[0] == "Results(50 detections in an array, 100 x 60 pixels)"
    line = " ".join(text.splitlines()[1].split())
    assert line == "0.49 name 49 196.0 197.0 198.0 199.0"
    assert text.endswith("... and 40 more")
    assert "the best score is 0.25" in repr(read([0.25], 0.9))


def test_notebooks_show_the_picture():
    assert read([0.5])._repr_png_().startswith(b"\x89PNG")


def test_a_file_that_changed_since_is_not_drawn_on(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="had 100 x 60 pixels when it was looked at, and has 4 x 5"):
        Picture(tmp_path / "a.png", 100, 60).pixels()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a\.json cannot be written"):
        read([0.5]).save(tmp_path / "file" / "a.json")
    with pytest.raises(DataError, match=r"a\.doc cannot be written"):
        read([0.5]).save(tmp_path / "a.doc")
