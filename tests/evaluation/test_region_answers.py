"""Naming annotated objects, choosing among candidates, and answers that are known."""

import numpy as np
import pytest

from llmdet.errors import DataError
from llmdet.evaluation.answers import answer_scores
from llmdet.evaluation.coco_classification import coco_classification
from llmdet.evaluation.expressions import Expression
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.evaluation.predictions import prediction_row
from llmdet.evaluation.region_choice import choice_scores
from llmdet.prompts.region_tasks import NO_REGION

BOXES = [[0.0, 0, 10, 10], [20.0, 0, 40, 40], [100.0, 100, 100, 100], [0.0, 0, 300, 300]]
CLASSES = ("cat", "dog", "traffic light")


def truth():
    """A cat, a dog, a traffic light, and a crowd of dogs."""
    annotations = [
        {"id": 7 + n, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3]}
        for n, (box, c) in enumerate(zip(BOXES, (1, 2, 3, 2), strict=True))
    ]
    annotations[-1]["iscrowd"] = 1
    return parse_coco(
        {
            "images": [{"id": 1, "width": 400, "height": 400}],
            "annotations": annotations,
            "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
        }
    )


def test_right_names_are_perfect_and_a_crowd_is_not_asked_about():
    values = coco_classification(truth(), {7: "cat", 8: "dog", 9: "traffic light"})
    assert [values[name] for name in ("AP", "APs", "APm", "APl")] == pytest.approx([1] * 4)
    assert values["accuracy"] == values["accuracy_of_names"] == 1
    assert (values["discarded"], values["regions"]) == (0, 3)


def test_what_names_no_class_is_discarded_and_wrong():
    values = coco_classification(truth(), {7: "kitten", 8: "dog", 9: "dog"})
    assert (values["discarded"], values["accuracy"]) == (1, pytest.approx(1 / 3))
    # No cat is found and no light; of two detections of dogs, equal in score, the first is right.
    assert values["AP"] == pytest.approx(1 / 3)


def test_ap_reads_a_name_up_to_the_comma_and_accuracy_all_of_it():
    values = coco_classification(truth(), {7: "Cat, on a mat", 8: "dog", 9: "traffic light"})
    assert values["AP"] == pytest.approx(1)
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["accuracy_of_names"] == 1


def test_the_numbers_are_those_of_pycocotools():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(3)
    images = [{"id": n, "width": 640, "height": 480} for n in range(1, 9)]
    annotations = []
    for number in range(90):
        x, y, w, h = (random.random(4) * [400, 300, 200, 150] + [0, 0, 4, 4]).tolist()
        image, category = (int(value) for value in random.integers(1, (9, 4)))
        annotation = {"id": number + 1, "image_id": image, "category_id": category}
        annotation |= {"bbox": [x, y, w, h], "area": w * h / 2, "iscrowd": int(number % 15 == 0)}
        annotations.append(annotation)
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    said = {item["id"]: str(random.choice([*CLASSES, "chair"])) for item in annotations}
    results = [
        {**item, "category_id": CLASSES.index(said[item["id"]]) + 1, "score": 1.0}
        for item in annotations
        if said[item["id"]] in CLASSES and not item["iscrowd"]
    ]
    official = COCO()
    official.dataset = {**data, "info": {}}
    official.createIndex()
    judge = COCOeval(official, official.loadRes([dict(item) for item in results]), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = coco_classification(parse_coco(data), said)
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    np.testing.assert_allclose([ours[name] for name in names], judge.stats[:6], atol=1e-12)


def expression(identity, *boxes):
    return Expression(identity, "refcocog", np.asarray(boxes, float).reshape(-1, 4))


def chosen(identity, text, boxes=([0, 0, 10, 10], [20, 0, 30, 10])):
    count = len(boxes)
    return prediction_row(identity, boxes, [1.0] * count, [0] * count, text=text)


def test_a_choice_counts_by_overlap_and_what_cannot_be_read_is_said():
    wanted = [0.0, 0, 10, 12]
    texts = ["Region [1].", "It is region [2]", "Region [3].", "the left one", NO_REGION]
    rows = {number: chosen(number, text) for number, text in enumerate(texts)}
    rows[5] = chosen(5, "Region [1].", boxes=[[50, 50, 60, 60]])
    values = choice_scores([expression(number, wanted) for number in range(6)], rows)
    expected = {"accuracy": 1, "found": 5, "none": 1, "unread": 2}
    assert {name: values[name] * 6 for name in expected} == pytest.approx(expected)
    assert values["candidates"] == pytest.approx(11 / 6)


def test_where_nothing_is_meant_none_is_the_answer():
    rows = {1: chosen(1, NO_REGION), 2: chosen(2, "Region [1].")}
    values = choice_scores([expression(1), expression(2)], rows)
    assert (values["accuracy"], values["found"]) == (0.5, 1)


def test_an_expression_without_candidates_is_a_miss():
    rows = {1: chosen(1, "Region [1].", boxes=())}
    values = choice_scores([expression(1, [0, 0, 9, 9]), expression(2, [0, 0, 9, 9])], rows)
    assert (values["accuracy"], values["found"], values["candidates"]) == (0, 0, 0)


def test_answers_are_compared_without_case_and_full_stop():
    wanted = {0: "Region [2].", 1: "red", 2: "blue"}
    values = answer_scores(wanted, {0: "region [2]", 1: "Red.", 2: "bluish"})
    assert values == {"accuracy": pytest.approx(2 / 3), "questions": 3}
    tasks = {0: "exist", 1: "exist", 2: "classify", 3: None}
    known = {0: "Yes.", 1: "no", 2: "cat", 3: "dog"}
    values = answer_scores(known, {0: "yes", 1: "Yes", 2: "cat"}, tasks)
    assert (values["accuracy"], values["yes_ratio"]) == (0.5, 1)
    assert values["task"] == {"classify": 1, "exist": 0.5}
    with pytest.raises(DataError, match="no questions"):
        answer_scores({}, {})
