"""Every detection gets the error that a person would name, and the page shows it."""

import json

import numpy as np
import pytest

from llmdet.errors import DataError
from llmdet.evaluation.detections import from_coco_results
from llmdet.evaluation.diagnosis import (
    KINDS,
    confusions,
    diagnose,
    possible_gains,
    text_similarity,
)
from llmdet.evaluation.error_page import write_error_page
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.testing.benchmarks import write_miniature

CAT, DOG = 1, 2
HERE, THERE = [0, 0, 100, 100], [200, 0, 100, 100]
NEAR = [60, 0, 100, 100]  # IoU 0.25 with HERE
NOWHERE = [500, 500, 50, 50]


def world(boxes, results):
    """Boxes (category, xywh, crowd) and results (category, xywh, score) in one image."""
    truth = parse_coco(
        {
            "images": [{"id": 1}],
            "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": 1,
                    "category_id": c,
                    "bbox": b,
                    "area": b[2] * b[3],
                    "iscrowd": int(crowd),
                }
                for i, (c, b, crowd) in enumerate(boxes)
            ],
        }
    )
    found = from_coco_results(
        {"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in results
    )
    return diagnose(truth, found)


@pytest.mark.parametrize(
    ("category", "box", "kind"),
    [
        (CAT, HERE, "right"),
        (DOG, HERE, "class"),
        (CAT, NEAR, "location"),
        (DOG, NEAR, "both"),
        (CAT, NOWHERE, "background"),
    ],
)
def test_one_detection_beside_one_cat_is_named(category, box, kind):
    diagnosis = world([(CAT, HERE, False)], [(category, box, 0.5)])
    assert [KINDS[k] for k in diagnosis.kinds] == [kind]
    assert diagnosis.missed.tolist() == [kind in ("both", "background")]


def test_the_second_detection_of_a_box_is_a_duplicate():
    diagnosis = world([(CAT, HERE, False)], [(CAT, HERE, 0.5), (CAT, HERE, 0.9)])
    assert diagnosis.detections.scores.tolist() == [0.9, 0.5]
    assert [KINDS[k] for k in diagnosis.kinds] == ["right", "duplicate"]


def test_detections_on_a_crowd_are_ignored_and_a_crowd_is_never_missed():
    diagnosis = world([(CAT, HERE, True)], [(CAT, HERE, 0.5), (CAT, HERE, 0.4)])
    assert [KINDS[k] for k in diagnosis.kinds] == ["ignored", "ignored"]
    assert not diagnosis.missed.any()


def test_fixing_the_only_kind_of_error_gains_all_that_was_lost():
    cases = {
        "class": [(DOG, HERE, 0.9), (CAT, THERE, 0.5)],
        "location": [(CAT, NEAR, 0.9), (CAT, THERE, 0.5)],
        "background": [(CAT, NOWHERE, 0.9), (CAT, HERE, 0.5), (CAT, THERE, 0.5)],
        "missed": [(CAT, HERE, 0.9)],
    }
    for kind, results in cases.items():
        gains = possible_gains(world([(CAT, HERE, False), (CAT, THERE, False)], results))
        assert gains["AP50"] < 0.7
        assert gains["AP50"] + gains[kind] == pytest.approx(1), kind
        others = [name for name in gains if name not in ("AP50", kind)]
        assert all(gains[name] < 1 - gains["AP50"] for name in others)


def test_corrected_detections_of_a_taken_box_are_dropped():
    results = [(CAT, HERE, 0.9), (DOG, HERE, 0.95)]
    gains = possible_gains(world([(CAT, HERE, False)], results))
    assert gains["class"] == pytest.approx(0)


def test_only_the_hundred_best_of_an_image_are_diagnosed():
    results = [(CAT, NOWHERE, score) for score in np.linspace(0, 1, 150)]
    assert len(world([(CAT, HERE, False)], results).detections) == 100


def test_confusions_count_pairs_of_names():
    boxes = [(CAT, HERE, False), (CAT, THERE, False)]
    diagnosis = world(boxes, [(DOG, HERE, 0.9), (DOG, THERE, 0.8)])
    assert confusions(diagnosis) == [(CAT, DOG, 2)]


def test_names_that_share_words_are_alike():
    assert text_similarity("traffic_light", "traffic light") == 1
    assert text_similarity("red cat", "blue cat") > text_similarity("red cat", "airplane")


@pytest.fixture
def coco(tmp_path):
    write_miniature("coco", tmp_path)
    folder = tmp_path / "data" / "coco"
    results = [
        {"image_id": 1, "category_id": 2, "bbox": [4, 4, 16, 12], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [30, 2, 4, 4], "score": 0.8},
    ]
    (tmp_path / "p.json").write_text(json.dumps(results))
    return folder, tmp_path / "p.json", tmp_path / "page.html"


def page_of(coco, images="val2017", score_threshold=0.3):
    """The page of the fixture's detections."""
    folder, pred, out = coco
    write_error_page(
        folder / "annotations/instances_val2017.json",
        pred,
        out,
        images=folder / images,
        classes=2,
        pictures=2,
        score_threshold=score_threshold,
    )
    return out.read_text()


def test_the_page_shows_kinds_classes_names_and_pictures(coco):
    page = page_of(coco)
    assert page.count("data:image/jpeg;base64,") == 2
    assert "1 of 1 not found, 1 wrong; called dog" in page
    assert "<td>cat</td><td>dog</td><td>1</td>" in page
    assert "http" not in page


def test_the_page_counts_names_and_alarms_at_one_threshold(coco):
    page = page_of(coco, score_threshold=0.85)
    assert "called dog" in page  # of score 0.9
    assert "2 judged detections, of which 1 score 0.85 or more" in page
    page = page_of(coco, score_threshold=0.95)
    assert "called" not in page
    assert "<td>cat</td><td>dog</td>" not in page
    assert "<tr><td>class</td><td>1</td><td>0</td>" in page


def test_a_missing_image_is_named(coco):
    with pytest.raises(DataError, match=r"000000000001.jpg"):
        page_of(coco, images="")


def test_lvis_is_judged_by_its_federated_rules(tmp_path):
    write_miniature("lvis_minival", tmp_path)
    folder = tmp_path / "data" / "coco"
    (tmp_path / "p.json").write_text("[]")
    gt = folder / "annotations/lvis_v1_minival_inserted_image_name.json"
    write_error_page(
        gt,
        tmp_path / "p.json",
        tmp_path / "page.html",
        images=folder,
        classes=2,
        pictures=1,
        score_threshold=0.3,
        partial=True,  # no image has a box
    )
    assert "0 judged detections" in (tmp_path / "page.html").read_text()
