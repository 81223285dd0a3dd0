"""LVIS AP and fixed AP equal lvis-api on any data set, and follow Dave et al.'s order of cuts."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import DataError
from llmdet.evaluation.detections import from_coco_results
from llmdet.evaluation.ground_truth import parse_lvis
from llmdet.evaluation.lvis_ap import cap_per_class, lvis_ap, lvis_fixed_ap
from llmdet.testing.golden import assert_equal_metrics

CORNERS = st.integers(0, 5).map(lambda n: n * 8.0)
SIDES = st.sampled_from([0.0, 8.0, 16.0, 40.0, 120.0])
SCORES = st.sampled_from([0.125, 0.25, 0.5, 0.75])


@pytest.fixture(scope="module")
def lvis_api():
    """lvis-api; its release uses an alias that numpy removed."""
    missing = not hasattr(np, "float")
    if missing:
        np.float = float
    import lvis

    yield lvis
    if missing:
        del np.float


@st.composite
def worlds(draw):
    """Federated annotations and results."""
    images = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
    categories = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True))
    box = st.tuples(CORNERS, CORNERS, SIDES, SIDES).map(list)
    some = st.lists(st.sampled_from(categories), unique=True)
    truth = st.tuples(
        st.sampled_from(images), st.sampled_from(categories), box, st.sampled_from([0, 0, 1])
    )
    guess = st.tuples(st.sampled_from(images), st.sampled_from(categories), box, SCORES)
    first_id = draw(st.sampled_from([0, 1]))
    annotations = []
    for image, category, xywh, ignore in draw(st.lists(truth, max_size=8)):
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image,
                "category_id": category,
                "bbox": xywh,
                "area": xywh[2] * xywh[3],
                "segmentation": [],
                "ignore": ignore,
            }
        )
    content = {
        "images": [
            {"id": i, "neg_category_ids": draw(some), "not_exhaustive_category_ids": draw(some)}
            for i in images
        ],
        "categories": [
            {"id": c, "name": str(c), "frequency": draw(st.sampled_from("rcf"))} for c in categories
        ],
        "annotations": annotations,
    }
    results = [
        {"image_id": image, "category_id": category, "bbox": xywh, "score": score}
        for image, category, xywh, score in draw(st.lists(guess, min_size=1, max_size=20))
    ]
    return content, results


def lvis_api_ap(lvis, folder, content, results, max_dets):
    path = folder / "gt.json"
    path.write_text(json.dumps(content))
    truth = lvis.LVIS(str(path))
    found = lvis.LVISResults(truth, copy.deepcopy(results), max_dets=max_dets)
    evaluator = lvis.LVISEval(truth, found, "bbox")
    evaluator.params.max_dets = max_dets
    evaluator.run()
    return {name: float(value) for name, value in evaluator.results.items()}


@settings(max_examples=100, deadline=None)
@given(world=worlds(), max_dets=st.sampled_from([3, 300]))
def test_every_number_equals_lvis_api(lvis_api, tmp_path_factory, world, max_dets):
    content, results = world
    folder = tmp_path_factory.mktemp("lvis")
    ours = lvis_ap(parse_lvis(content), from_coco_results(results), max_dets)
    assert_equal_metrics(ours, lvis_api_ap(lvis_api, folder, content, results, max_dets))


@settings(max_examples=50, deadline=None)
@given(world=worlds())
def test_fixed_ap_without_a_full_class_is_lvis_ap_without_limit(lvis_api, tmp_path_factory, world):
    content, results = world
    folder = tmp_path_factory.mktemp("lvis")
    ours = lvis_fixed_ap(parse_lvis(content), from_coco_results(results))
    assert_equal_metrics(ours, lvis_api_ap(lvis_api, folder, content, results, -1))


CONTENT = {
    "images": [
        {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ],
    "categories": [{"id": 1, "name": "cat", "frequency": "r"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100},
    ],
}
RIGHT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
UNJUDGED = RIGHT | {"image_id": 2, "score": 0.9}


def test_detections_that_are_not_judged_use_slots_of_their_class_officially():
    truth, found = parse_lvis(CONTENT), from_coco_results([UNJUDGED, RIGHT])
    assert lvis_fixed_ap(truth, found, limit=1)["AP"] == 0
    assert lvis_fixed_ap(truth, found, limit=1, cut_order="federated")["AP"] == pytest.approx(1)


def test_among_equal_scores_the_first_in_the_file_is_kept():
    truth = parse_lvis(CONTENT)
    found = from_coco_results([UNJUDGED | {"score": 0.5}, RIGHT])
    assert cap_per_class(truth, found, limit=1).image_ids.tolist() == [2]


def test_an_image_without_its_federated_lists_is_named():
    content = CONTENT | {"images": [{"id": 1, "neg_category_ids": []}]}
    with pytest.raises(DataError, match="image 1 has no field 'not_exhaustive_category_ids'"):
        parse_lvis(content)


def test_a_category_without_frequency_is_named():
    categories = [*CONTENT["categories"], {"id": 2, "name": "dog"}]
    content = CONTENT | {"categories": categories}
    with pytest.raises(DataError, match="category 2 has no field 'frequency'"):
        parse_lvis(content)
