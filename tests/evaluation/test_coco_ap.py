"""COCO AP equals pycocotools on any data set, however small and odd."""

import contextlib
import copy
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from llmdet.errors import DataError
from llmdet.evaluation.coco_ap import MMDET_MAX_DETS, coco_ap, coco_curves
from llmdet.evaluation.detections import from_coco_results
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.testing.golden import assert_equal_metrics

# coarse grids, so that IoUs of exactly 0.5, equal boxes and equal scores occur
CORNERS = st.integers(0, 5).map(lambda n: n * 8.0)
SIDES = st.sampled_from([0.0, 8.0, 16.0, 40.0, 120.0])
SCORES = st.sampled_from([0.125, 0.25, 0.5, 0.75])


@st.composite
def worlds(draw):
    """Annotations and results of up to three images and three classes."""
    images = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    categories = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    box = st.tuples(CORNERS, CORNERS, SIDES, SIDES).map(list)
    truth = st.tuples(
        st.sampled_from(images), st.sampled_from(categories), box, st.sampled_from([0, 0, 0, 1])
    )
    guess = st.tuples(st.sampled_from(images), st.sampled_from(categories), box, SCORES)
    first_id = draw(st.sampled_from([0, 1, 7]))
    annotations = [
        {
            "id": first_id + number,
            "image_id": image,
            "category_id": category,
            "bbox": xywh,
            "area": xywh[2] * xywh[3],
            "iscrowd": crowd,
        }
        for number, (image, category, xywh, crowd) in enumerate(draw(st.lists(truth, max_size=8)))
    ]
    results = [
        {"image_id": image, "category_id": category, "bbox": xywh, "score": score}
        for image, category, xywh, score in draw(st.lists(guess, min_size=1, max_size=20))
    ]
    content = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        "annotations": annotations,
    }
    return content, results


def pycocotools_ap(content, results, max_dets):
    """The twelve numbers of the reference."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluator.params.maxDets = list(max_dets)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", *(f"AR@{n}" for n in max_dets)]
    return dict(zip([*names, "ARs", "ARm", "ARl"], evaluator.stats.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from([(1, 10, 100), (1, 2, 100)]))
def test_every_number_equals_pycocotools(world, max_dets):
    content, results = world
    ours = coco_ap(parse_coco(content), from_coco_results(results), max_dets)
    assert_equal_metrics(ours, pycocotools_ap(content, results, max_dets))


CONTENT = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100},
    ],
}
RIGHT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}


def test_of_two_boxes_equally_far_the_later_one_in_the_file_is_taken():
    boxes = ([0, 0, 10, 10], [4, 0, 10, 10])
    content = CONTENT | {
        "annotations": [
            {"id": 1 + i, "image_id": 1, "category_id": 1, "bbox": b, "area": 100, "iscrowd": 0}
            for i, b in enumerate(boxes)
        ]
    }
    between, behind = [2, 0, 10, 10], [5, 0, 10, 10]  # the second can only take the later box
    results = [RIGHT | {"bbox": between, "score": 0.9}, RIGHT | {"bbox": behind, "score": 0.8}]
    ours = coco_ap(parse_coco(content), from_coco_results(results))
    assert ours["AP50"] == pytest.approx(51 / 101)
    assert_equal_metrics(ours, pycocotools_ap(content, results, (1, 10, 100)))


def test_no_predictions_at_all_give_zero_where_boxes_were_to_be_found():
    metrics = coco_ap(parse_coco(CONTENT), from_coco_results([]))
    assert metrics["AP"] == metrics["AR@100"] == 0
    assert metrics["APl"] == -1


def test_no_annotations_at_all_give_minus_one():
    content = CONTENT | {"annotations": []}
    assert coco_ap(parse_coco(content), from_coco_results([RIGHT]))["AP"] == -1


def test_the_order_of_predictions_matters_only_among_equal_scores():
    random = np.random.default_rng(0)
    scores = random.permutation(30) / 30
    results = [
        RIGHT | {"bbox": [shift, 0, 10, 10], "score": score}
        for shift, score in zip(random.uniform(0, 8, 30), scores, strict=True)
    ]
    truth = parse_coco(CONTENT)
    shuffled = [results[index] for index in random.permutation(30)]
    assert coco_ap(truth, from_coco_results(results)) == coco_ap(truth, from_coco_results(shuffled))


def test_headline_ap_is_at_100_detections_whatever_limits_are_set():
    results = [RIGHT | {"bbox": [50, 50, 5, 5], "score": 0.9} for _ in range(150)] + [RIGHT]
    metrics = coco_ap(parse_coco(CONTENT), from_coco_results(results), MMDET_MAX_DETS)
    assert metrics["AP"] == 0
    assert metrics["AP50"] > 0


def test_categories_without_boxes_are_left_out_of_the_mean():
    curves = coco_curves(parse_coco(CONTENT), from_coco_results([RIGHT]))
    assert curves.per_category() == {1: pytest.approx(1), 2: -1}


def test_predictions_on_an_unknown_image_are_refused():
    with pytest.raises(DataError, match="image_id 9"):
        coco_ap(parse_coco(CONTENT), from_coco_results([RIGHT | {"image_id": 9}]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [CONTENT["annotations"][0]] * 2}, "annotation id 1 appears twice"),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 1}]},
            "annotation id 1: bbox None is not four numbers",
        ),
        ({"annotations": [CONTENT["annotations"][0] | {"image_id": 5}]}, "no image has the id 5"),
        ({"images": None}, "images"),
    ],
)
def test_faulty_annotations_are_named(change, message):
    content = {key: value for key, value in (CONTENT | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        parse_coco(content)


def test_a_result_without_score_is_named():
    record = {key: value for key, value in RIGHT.items() if key != "score"}
    with pytest.raises(DataError, match=r"results\[1\] has no field 'score'"):
        from_coco_results([RIGHT, record])
