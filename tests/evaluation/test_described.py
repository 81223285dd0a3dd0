"""D3, OVDEval and OmniLabel: their rules at the edges."""

import numpy as np
import pytest

from llmdet.errors import DataError
from llmdet.evaluation.d3 import d3_ap, d3_ap_by_count
from llmdet.evaluation.detections import from_coco_results
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.evaluation.omnilabel import (
    box_counts,
    omnilabel_ap,
    parse_omnilabel,
    parse_omnilabel_results,
)
from llmdet.evaluation.ovdeval import suppress_around_boxes

BOX = [0.0, 0.0, 10.0, 10.0]


def truth(names, pairs):
    """Annotations: boxes of (image, category)."""
    return parse_coco(
        {
            "images": [{"id": 1}, {"id": 2}],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [20.0 * i, 0, 10, 10],
                    "area": 100,
                }
                for i, (image, category) in enumerate(pairs)
            ],
        }
    )


def result(category, score, box=BOX, image=1):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_descriptions_are_grouped_by_words_and_absent_groups_are_minus_one():
    boxes = truth(["red cat", "a dog that runs fast"], [(1, 1), (2, 2)])
    values = d3_ap(boxes, from_coco_results([result(1, 0.9)]))
    assert values["mAP_short"] == pytest.approx(1)
    assert values["mAP_mid"] == 0
    assert values["mAP_long"] == values["mAP_very_long"] == -1


def test_groups_by_count_judge_only_pairs_with_that_many_boxes():
    boxes = truth(["cat"], [(1, 1), (2, 1), (2, 1)])
    found = [result(1, 0.9), result(1, 0.95, [500, 0, 10, 10], image=2)]
    values = d3_ap_by_count(boxes, from_coco_results(found))
    assert values["one"]["AP"] == pytest.approx(1)
    assert values["two"]["AP"] == 0
    assert values["no"]["AP"] == -1


def test_around_a_box_only_the_best_detection_of_any_class_is_kept():
    boxes = truth(["red cat", "blue cat"], [(1, 1)])
    found = [
        result(1, 0.5),
        result(2, 0.9),
        result(1, 0.4, [0, 0, 10, 5]),
        result(1, 0.1, [90, 90, 5, 5]),
        result(1, 0.2, image=2),
    ]
    kept = suppress_around_boxes(boxes, from_coco_results(found))
    # an IoU of exactly 0.5 is no overlap, another image is not touched
    np.testing.assert_allclose(kept.scores, [0.9, 0.4, 0.1, 0.2])


def test_a_detection_kept_by_one_box_is_not_removed_by_another():
    boxes = parse_coco(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [3, 0, 10, 10], "area": 100},
            ],
        }
    )
    found = [result(1, 0.9, [-2, 0, 10, 10]), result(1, 0.5, [3, 0, 10, 10])]
    kept = suppress_around_boxes(boxes, from_coco_results(found))
    assert len(kept) == 2


def test_among_equal_scores_the_last_in_the_file_stays():
    boxes = truth(["cat", "dog"], [(1, 1)])
    kept = suppress_around_boxes(boxes, from_coco_results([result(1, 0.5), result(2, 0.5)]))
    assert kept.category_ids.tolist() == [2]


OMNILABEL = {
    "images": [{"id": 1}],
    "descriptions": [
        {"id": 5, "text": "cat", "image_ids": [1], "anno_info": {"type": "object_category"}},
        {
            "id": 6,
            "text": "the cat that sleeps",
            "image_ids": [1],
            "anno_info": {"type": "object_description"},
        },
        {"id": 7, "text": "a dog", "image_ids": [1], "anno_info": {"type": "object_description"}},
    ],
    "annotations": [{"id": 1, "image_id": 1, "bbox": BOX, "description_ids": [5, 6]}],
}


def answers(*scored):
    return [{"image_id": 1, "bbox": BOX, "description_ids": [d], "scores": [s]} for d, s in scored]


def test_a_perfect_result_falls_short_of_one_by_the_stabiliser():
    known = parse_omnilabel(OMNILABEL)
    values = omnilabel_ap(known, parse_omnilabel_results(answers((5, 0.9), (6, 0.8)), known))
    assert values["AP hm(descr,categ) 0.50:0.95"] == pytest.approx(0.999995)


def test_a_negative_description_hurts_all_descriptions_but_not_the_positive_ones():
    known = parse_omnilabel(OMNILABEL)
    found = parse_omnilabel_results(answers((5, 0.9), (6, 0.5), (7, 0.8)), known)
    values = omnilabel_ap(known, found)
    assert values["AP descr 0.50:0.95"] == pytest.approx(0.5)
    assert values["AP descr-pos 0.50:0.95"] == pytest.approx(1)
    assert values["AP descr-l 0.50:0.95"] == -1
    assert box_counts(known, found)["descr-m"] == 1


def test_descriptions_outside_the_label_space_do_not_count():
    known = parse_omnilabel(OMNILABEL)
    assert len(parse_omnilabel_results(answers((99, 0.9)), known)) == 0


def test_scores_and_descriptions_must_agree_in_number():
    known = parse_omnilabel(OMNILABEL)
    record = {"image_id": 1, "bbox": BOX, "description_ids": [5, 6], "scores": [0.5]}
    with pytest.raises(DataError, match="2 description_ids and 1 scores"):
        parse_omnilabel_results([record], known)
