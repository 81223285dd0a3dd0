"""The prediction file survives kills, resumes, several processes, and other people's files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.expressions import Expression
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.evaluation.loading import load_detections, load_expression_boxes
from llmdet.evaluation.prediction_writer import PredictionWriter, header_differences, merge_parts
from llmdet.evaluation.predictions import (
    PredictionHeader,
    is_prediction_file,
    prediction_row,
    read_header,
    read_predictions,
)

HEADER = PredictionHeader(model="tiny", weights_hash="abc", classes=("cat", "dog"))
BOXES = np.asarray([[0.1, 0.2, 10.3, 10.4], [1, 1, 5, 5]], np.float32)


def write(path, images, header=HEADER, **settings):
    with PredictionWriter(path, header, **settings) as writer:
        for image in images:
            writer.write(prediction_row(image, BOXES + image, [0.3, 0.1], [1, 0]))


def test_what_is_written_is_read_bit_by_bit(tmp_path):
    write(tmp_path / "p.jsonl", [3, 1])
    header, images = read_predictions(tmp_path / "p.jsonl")
    assert header == HEADER
    assert [image.image_id for image in images] == [1, 3]
    np.testing.assert_array_equal(images[0].boxes, BOXES + np.float32(1))
    assert images[0].scores.tolist() == [np.float32(0.3), np.float32(0.1)]
    assert images[0].labels.tolist() == [1, 0]


def test_tensors_of_any_precision_are_taken(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        boxes = torch.zeros(1, 4, requires_grad=True, dtype=torch.bfloat16)
        writer.write(prediction_row(1, boxes, torch.ones(1), torch.zeros(1).long()))
    assert read_predictions(tmp_path / "p.jsonl")[1][0].scores.tolist() == [1]


def test_an_image_without_boxes_is_done_too(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        writer.write(prediction_row(7, np.zeros((0, 4)), [], []))
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        assert writer.done == {7}


def test_a_second_run_continues_and_does_not_repeat(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, [1, 2])
    write(path, [1, 2, 3])
    assert len(path.read_bytes().splitlines()) == 1 + 3
    assert [image.image_id for image in read_predictions(path)[1]] == [1, 2, 3]


@pytest.mark.parametrize("torn", [1, 15, 60])
def test_a_line_torn_by_a_kill_is_dropped_and_redone(tmp_path, torn):
    path = tmp_path / "p.jsonl"
    write(path, [1, 2])
    path.write_bytes(path.read_bytes()[:-torn])
    assert [image.image_id for image in read_predictions(path)[1]] == [1]
    with PredictionWriter(path, HEADER) as writer:
        assert writer.done == {1}
    write(path, [2])
    assert [image.image_id for image in read_predictions(path)[1]] == [1, 2]


def test_a_torn_header_is_written_again(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"format":"llmdet-pre')
    write(path, [4])
    assert read_header(path) == HEADER


@pytest.mark.parametrize("field", ["model", "weights_hash", "chunk_size", "score_threshold"])
def test_predictions_of_another_model_or_protocol_are_not_continued(tmp_path, field):
    write(tmp_path / "p.jsonl", [1])
    other = dataclasses.replace(HEADER, **{field: 7})
    with pytest.raises(ConfigError, match=field):
        PredictionWriter(tmp_path / "p.jsonl", other)


@pytest.mark.parametrize("content", [b'[{"image_id": 1}]', b"no json", b'{"a": 1}\n{"b'])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, content):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError):
        PredictionWriter(path, HEADER)
    assert path.read_bytes() == content
    assert not is_prediction_file(path)


def test_parts_of_several_processes_become_one_file_without_repeats(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, [1, 3], rank=0, world_size=2)
    write(path, [2, 1], rank=1, world_size=2)
    assert sorted(image.image_id for image in read_predictions(path)[1]) == [1, 2, 3]
    merge_parts(path)
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]
    assert [image.image_id for image in read_predictions(path)[1]] == [1, 2, 3]


def test_one_process_continues_what_two_began(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, [1], rank=0, world_size=2)
    write(path, [2], rank=1, world_size=2)
    with PredictionWriter(path, HEADER) as writer:
        assert writer.done == {1, 2}
        writer.write(prediction_row(3, BOXES, [1, 0.5], [0, 0]))
    merge_parts(path)
    assert sorted(image.image_id for image in read_predictions(path)[1]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [(BOXES[:1], "disagree in length"), (np.full((2, 4), np.nan), "NaN")],
)
def test_broken_predictions_are_refused_before_they_are_written(boxes, message):
    with pytest.raises(DataError, match=f"image 1 .*{message}"):
        prediction_row(1, boxes, [0.5, 0.5], [0, 0])


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, [1])
    path.write_bytes(path.read_bytes() + b'{"image_id": 2}\n')
    with pytest.raises(DataError, match=r"p.jsonl:3 has no field 'boxes'"):
        read_predictions(path)


TRUTH = parse_coco(
    {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 40, "name": "dog"}, {"id": 7, "name": "cat"}],
        "annotations": [],
    }
)


def test_labels_become_categories_by_name_whatever_their_order(tmp_path):
    write(tmp_path / "p.jsonl", [2, 1])
    found = load_detections(tmp_path / "p.jsonl", TRUTH)
    assert found.image_ids.tolist() == [1, 1, 2, 2]
    assert found.category_ids.tolist() == [40, 7, 40, 7]


def test_an_image_may_have_a_label_space_of_its_own(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        writer.write(prediction_row(1, BOXES, [0.5, 0.4], [1, 0], category_ids=[11, 12]))
    found = load_detections(tmp_path / "p.jsonl", TRUTH, partial=True)
    assert found.category_ids.tolist() == [12, 11]


def test_a_label_beyond_the_classes_is_an_error(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        writer.write(prediction_row(1, BOXES, [0.5, 0.4], [2, 0]))
    with pytest.raises(DataError, match="label 2 of 2 classes"):
        load_detections(tmp_path / "p.jsonl", TRUTH, partial=True)


def test_expressions_read_the_same_file(tmp_path):
    write(tmp_path / "p.jsonl", [5])
    expression = Expression(5, "refcoco", np.zeros((0, 4)))
    boxes = load_expression_boxes(tmp_path / "p.jsonl", [expression])
    np.testing.assert_allclose(boxes[5].boxes, BOXES + 5)


def test_words_indices_and_masks_come_back_as_they_were_given(tmp_path):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    row = prediction_row(
        5,
        BOXES,
        [0.5, 0.4],
        [0, 0],
        text="a cat [SEG]",
        phrases=["a cat"],
        indices=torch.tensor([1]),
        masks=[mask],
    )
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        writer.write(row)
    (read,) = read_predictions(tmp_path / "p.jsonl")[1]
    assert (read.text, read.phrases, read.indices) == ("a cat [SEG]", ("a cat",), (1,))
    np.testing.assert_array_equal(mask_utils.decode(read.masks[0]), mask)
    assert read.masks == row.masks


def test_boxes_that_an_answer_names_count_alone(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl", HEADER) as writer:
        writer.write(prediction_row(1, BOXES, [0.5, 0.4], [1, 0], indices=[1]))
    found = load_detections(tmp_path / "p.jsonl", TRUTH, partial=True)
    assert found.category_ids.tolist() == [7]
    boxes = load_expression_boxes(tmp_path / "p.jsonl", [])
    np.testing.assert_array_equal(boxes[1].boxes, BOXES[1:])


@pytest.mark.parametrize("torn", [False, True])
def test_a_file_that_lacks_images_is_refused_unless_that_is_wanted(tmp_path, caplog, torn):
    path = tmp_path / "p.jsonl"
    write(path, [1])
    if torn:
        path.write_bytes(path.read_bytes() + b'{"image_id":2,"boxes":[[1')
    ending = "its last line is torn: the test" if torn else r"missing: 2\): the test"
    with pytest.raises(DataError, match=rf"of 1 of 2 images .*{ending}.*--out complete it"):
        load_detections(path, TRUTH)
    assert len(load_detections(path, TRUTH, partial=True)) == 2
    assert "of 1 of 2 images; in the others nothing counts as found" in caplog.text


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_other_formats_that_lack_images_are_refused_unless_that_is_wanted(tmp_path, caplog, suffix):
    path = tmp_path / f"p.{suffix}"
    if suffix == "json":
        box = {"image_id": 2, "category_id": 7, "bbox": [1, 1, 2, 2], "score": 0.5}
        path.write_text(json.dumps([box]))
    else:
        np.savez(path, image_id=[2], category_id=[7], bbox_xyxy=[[1.0, 1, 3, 3]], score=[0.5])
    sentence = r"of 1 of 2 images \(the first that is missing: 1\)\. Whether .*--partial evaluates"
    with pytest.raises(DataError, match=sentence):
        load_detections(path, TRUTH)
    with pytest.raises(DataError, match="of 1 of 2 expressions"):
        load_expression_boxes(path, [Expression(n, "refcoco", np.zeros((0, 4))) for n in (2, 6)])
    assert len(load_detections(path, TRUTH, partial=True)) == 1
    assert "of 1 of 2 images; in the others nothing counts as found" in caplog.text


def test_expressions_without_a_line_are_missing(tmp_path):
    write(tmp_path / "p.jsonl", [5])
    expressions = [Expression(number, "refcoco", np.zeros((0, 4))) for number in (5, 6)]
    with pytest.raises(DataError, match="of 1 of 2 expressions"):
        load_expression_boxes(tmp_path / "p.jsonl", expressions)


@pytest.mark.parametrize(
    ("words", "message"), [({"indices": [2]}, "box 2 of 2"), ({"text": 3}, "not a string")]
)
def test_words_that_do_not_fit_are_refused(words, message):
    with pytest.raises(DataError, match=f"image 1 .*{message}|image 1: .*{message}"):
        prediction_row(1, BOXES, [0.5, 0.4], [1, 0], **words)


def test_a_misspelt_field_of_a_line_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, [1])
    path.write_bytes(path.read_bytes().replace(b'"labels"', b'"phrase":["a"],"labels"'))
    with pytest.raises(DataError, match=r"p.jsonl:2 has a field 'phrase'; did you mean 'phrases'"):
        read_predictions(path)


CAPPED = dataclasses.replace(HEADER, limit_per="image", max_per_image=2)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [({}, True), ({"limit_per": "chunk"}, False), ({"max_per_image": 3}, False)],
)
def test_detections_that_a_limit_per_image_cut_are_refused_where_all_are_needed(
    tmp_path, changes, refused
):
    write(tmp_path / "p.jsonl", [1, 2], dataclasses.replace(CAPPED, **changes))
    assert len(load_detections(tmp_path / "p.jsonl", TRUTH)) == 4
    if refused:
        with pytest.raises(DataError, match=r"2 images have 2 boxes, .*limit_per='chunk'"):
            load_detections(tmp_path / "p.jsonl", TRUTH, uncapped=True)
    else:
        assert len(load_detections(tmp_path / "p.jsonl", TRUTH, uncapped=True)) == 4


def test_the_difference_of_two_protocols_is_named_by_its_path(tmp_path):
    old = dataclasses.replace(
        HEADER, protocol={"quirks": {"a": False}, "data": [{"scale": [8, 9]}]}
    )
    write(tmp_path / "p.jsonl", [1], old)
    new = dataclasses.replace(
        HEADER, protocol={"quirks": {"a": True}, "data": [{"scale": (8, 10)}]}, classes=("cat",)
    )
    message = r"classes = \['cat', 'dog'\], this run has \['cat'\]; protocol\.quirks\.a = False"
    with pytest.raises(ConfigError, match=message):
        PredictionWriter(tmp_path / "p.jsonl", new)
    assert list(header_differences(old, new))[1:] == [
        "protocol.quirks.a = False, this run has True",
        "protocol.data[0].scale = [8, 9], this run has [8, 10]",
    ]
