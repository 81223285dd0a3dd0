"""Referring expressions: one target, several, none, and nothing predicted."""

import numpy as np
import pytest

from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_giou, pairwise_iou
from llmdet.evaluation.expressions import Expression, ScoredBoxes, parse_expressions
from llmdet.evaluation.grefcoco import grefcoco_scores
from llmdet.evaluation.refexp import refexp_precision

BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def expression(*boxes, dataset="refcoco", identity=1):
    return Expression(identity, dataset, np.asarray(boxes, float).reshape(-1, 4))


def predicted(*scored):
    boxes = np.asarray([box for box, _ in scored], float).reshape(-1, 4)
    return {1: ScoredBoxes(boxes, np.asarray([score for _, score in scored]))}


def test_an_expression_without_predictions_is_a_miss():
    values = refexp_precision([expression(BOX)], {})
    assert values["refcoco_precision@10"] == 0


def test_boxes_are_ranked_by_score_not_by_their_order():
    found = predicted((FAR, 0.1), (BOX, 0.9))
    assert refexp_precision([expression(BOX)], found)["refcoco_precision@1"] == 1
    assert refexp_precision([expression(BOX)], found, order="file")["refcoco_precision@1"] == 0


def test_an_iou_of_exactly_one_half_is_right():
    found = predicted(([0.0, 0.0, 10.0, 5.0], 0.9))
    assert refexp_precision([expression(BOX)], found)["refcoco_precision@1"] == 1


def test_the_mean_counts_absent_data_sets_as_zero():
    values = refexp_precision([expression(BOX)], predicted((BOX, 0.9)))
    assert values["mean_precision"] == pytest.approx(1 / 3)


def test_an_expression_with_two_boxes_belongs_to_the_other_metric():
    with pytest.raises(DataError, match="2 boxes"):
        refexp_precision([expression(BOX, FAR)], {})


def test_all_targets_and_nothing_else_must_be_found():
    both = expression(BOX, FAR, dataset="grefcoco")
    assert grefcoco_scores([both], predicted((BOX, 0.9), (FAR, 0.7)))["F1_score"] == 1
    assert grefcoco_scores([both], predicted((BOX, 0.9), (FAR, 0.69)))["F1_score"] == 0
    extra = predicted((BOX, 0.9), (FAR, 0.8), (FAR, 0.8))
    assert grefcoco_scores([both], extra)["F1_score"] == 0


def test_nothing_must_be_answered_where_nothing_is_meant():
    nothing = expression(dataset="grefcoco")
    assert grefcoco_scores([nothing], {}) == {"F1_score": 1, "T_acc": -1, "N_acc": 1}
    assert grefcoco_scores([nothing], predicted((BOX, 0.7)))["N_acc"] == 0


def test_a_no_target_annotation_has_no_box():
    data = {
        "images": [{"id": 3, "dataset_name": "grefcoco"}],
        "annotations": [{"image_id": 3, "category_id": -1, "bbox": [0, 0, 0, 0]}],
    }
    assert parse_expressions(data)[0].boxes.shape == (0, 4)


def test_an_expression_without_any_annotation_is_named():
    data = {"images": [{"id": 3, "dataset_name": "refcoco"}], "annotations": []}
    with pytest.raises(DataError, match="expression 3"):
        parse_expressions(data)


def test_giou_is_iou_less_the_empty_part_of_the_hull():
    first, second = np.asarray([BOX]), np.asarray([[10.0, 0.0, 20.0, 10.0], BOX, FAR])
    np.testing.assert_allclose(pairwise_iou(first, second), [[0, 1, 0]])
    np.testing.assert_allclose(pairwise_giou(first, second), [[0, 1, 200 / 3600 - 1]])
