"""Recall without categories equals pycocotools with ``useCats=0``."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from llmdet.errors import ConfigError
from llmdet.evaluation.average_precision import IOU_THRESHOLDS
from llmdet.evaluation.detections import from_coco_results
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.evaluation.proposal_recall import proposal_recall
from llmdet.evaluation.suite import run_metric
from llmdet.registry import METRICS
from llmdet.testing.golden import assert_equal_metrics

CORNERS = st.integers(0, 5).map(lambda n: n * 8.0)
SIDES = st.sampled_from([0.0, 8.0, 16.0, 40.0, 120.0])


@st.composite
def worlds(draw):
    """Annotations and results of two images and three classes, with equal boxes and scores."""
    box = st.tuples(CORNERS, CORNERS, SIDES, SIDES).map(list)
    image, category = st.sampled_from([4, 2]), st.sampled_from([3, 1, 2])
    truths = st.tuples(image, category, box, st.sampled_from([0, 0, 0, 1]))
    guesses = st.tuples(image, category, box, st.sampled_from([0.25, 0.5, 0.75]))
    first_id = draw(st.sampled_from([0, 1]))
    annotations = [
        {
            "id": first_id + number,
            "image_id": image,
            "category_id": category,
            "bbox": xywh,
            "area": xywh[2] * xywh[3],
            "iscrowd": crowd,
        }
        for number, (image, category, xywh, crowd) in enumerate(draw(st.lists(truths, max_size=8)))
    ]
    results = [
        {"image_id": image, "category_id": category, "bbox": xywh, "score": score}
        for image, category, xywh, score in draw(st.lists(guesses, min_size=1, max_size=20))
    ]
    content = {
        "images": [{"id": 4}, {"id": 2}],
        "categories": [{"id": category, "name": str(category)} for category in (3, 1, 2)],
        "annotations": annotations,
    }
    return content, results


def pycocotools_recall(content, results, limits, thresholds):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluator.params.useCats = 0
        evaluator.params.maxDets = list(limits)
        evaluator.params.iouThrs = np.array(thresholds)
        evaluator.evaluate()
        evaluator.accumulate()
    values = {}
    for place, limit in enumerate(limits):
        for number, area in enumerate(("", "s", "m", "l")):
            found = evaluator.eval["recall"][:, :, number, place]
            existing = found[found > -1]
            values[f"AR{area}@{limit}"] = float(existing.mean()) if existing.size else -1.0
    return values


@settings(max_examples=100, deadline=None)
@given(
    worlds(),
    st.sampled_from([(100, 300, 900), (1, 3, 9)]),
    st.sampled_from([tuple(IOU_THRESHOLDS), (0.5,)]),
)
def test_every_number_equals_pycocotools_without_categories(world, limits, thresholds):
    content, results = world
    truth, found = parse_coco(content), from_coco_results(results)
    ours = proposal_recall(truth, found, limits, np.array(thresholds))
    assert_equal_metrics(ours, pycocotools_recall(content, results, limits, thresholds))


CONTENT = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 50, 20, 20], "area": 400},
    ],
}
BOXES = [[0, 0, 40, 40], [50, 50, 70, 70]]  # xyxy


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(CONTENT))
    return path


def test_a_prediction_file_of_nameless_objects_is_judged(truth, tmp_path):
    path = tmp_path / "preds.jsonl"
    with PredictionWriter(path, PredictionHeader(model="upn", classes=("object",))) as writer:
        writer.write(prediction_row(image_id=1, boxes=BOXES[:1], scores=[0.5], labels=[0]))
    values = run_metric("proposal-recall", truth, path).values
    assert values["AR@100"] == values["AR@900"] == 0.5
    assert (values["ARs@300"], values["ARm@300"], values["ARl@300"]) == (0, 1, -1)


def test_the_metric_of_a_config_gives_the_same_number(truth):
    metric = METRICS.build(
        {"type": "ProposalRecallMetric", "ann_file": str(truth), "limits": (1, 2)}
    )
    metric.dataset_meta = {"classes": ("object",)}
    found = {
        "bboxes": torch.tensor(BOXES, dtype=torch.float32),
        "scores": torch.tensor([0.2, 0.9]),
        "labels": torch.zeros(2, dtype=torch.int64),
    }
    metric.process(None, [{"img_id": 1, "pred_instances": found}])
    values = metric.evaluate(1)
    assert (values["proposals/AR@1"], values["proposals/AR@2"]) == (0.5, 1)
    assert np.isclose(values["proposals/ARs@1"], 1)


def test_limits_that_do_not_ascend_are_refused(truth):
    with pytest.raises(ConfigError, match="ascending positive numbers"):
        METRICS.build(
            {"type": "ProposalRecallMetric", "ann_file": str(truth), "limits": (300, 100)}
        )
