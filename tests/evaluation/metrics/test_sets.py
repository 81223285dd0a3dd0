"""Benchmarks of several sets are judged set by set and averaged."""

import json

import pytest
import torch

from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.metrics import BenchmarkEvaluator
from llmdet.evaluation.predictions import read_predictions


def write_set(path, box):
    """A set of one image (id 1 in every set) with one box."""
    x1, y1, x2, y2 = box
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 7,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
        ],
    }
    path.write_text(json.dumps(content))
    return {"type": "CocoMetric", "ann_file": str(path)}


def sample(name, box):
    return {
        "img_id": 1,
        "benchmark_set": name,
        "pred_instances": {
            "bboxes": torch.tensor([box]),
            "scores": torch.tensor([0.5]),
            "labels": torch.tensor([0]),
        },
    }


@pytest.fixture
def metrics(tmp_path):
    return {
        "first": write_set(tmp_path / "a.json", (0, 0, 50, 50)),
        "second": write_set(tmp_path / "b.json", (20, 20, 90, 90)),
    }


META = {"sets": {name: {"classes": ("cat",), "size": 1} for name in ("first", "second")}}


def test_each_set_is_judged_by_its_own_annotations_although_image_ids_repeat(metrics):
    evaluator = BenchmarkEvaluator(metrics, mean_of="bbox_mAP", coco_ap=0.5)
    evaluator.dataset_meta = META
    evaluator.process([sample("first", (0.0, 0.0, 50.0, 50.0))])
    evaluator.process([sample("second", (0.0, 0.0, 50.0, 50.0))])
    values = evaluator.evaluate(2)
    assert values["first/coco/bbox_mAP"] == pytest.approx(1)
    assert values["second/coco/bbox_mAP"] == 0
    assert values["mean/bbox_mAP"] == pytest.approx(0.5)
    assert values["effective_robustness"] == pytest.approx(0.5 - 0.45 * 0.5)


def test_predictions_are_dumped_into_a_file_per_set(metrics, tmp_path):
    dump = {
        name: {
            "type": "DumpPredictions",
            "out_file": str(tmp_path / f"p/{name}.jsonl"),
            "header": {"model": "tiny"},
        }
        for name in metrics
    }
    evaluator = BenchmarkEvaluator(metrics, dump=dump)
    evaluator.dataset_meta = META
    evaluator.process([sample("first", (0.0, 0.0, 50.0, 50.0))])
    evaluator.process([sample("second", (1.0, 0.0, 50.0, 50.0))])
    evaluator.evaluate(2)
    header, images = read_predictions(tmp_path / "p" / "second.jsonl")
    assert header.classes == ("cat",)
    assert [image.boxes.tolist() for image in images] == [[[1.0, 0.0, 50.0, 50.0]]]


def test_a_sample_of_no_set_is_an_error(metrics):
    evaluator = BenchmarkEvaluator(metrics)
    with pytest.raises(DataError, match="BenchmarkSets"):
        evaluator.process([sample("third", (0.0, 0.0, 1.0, 1.0))])


def test_a_data_set_with_other_sets_is_refused(metrics):
    evaluator = BenchmarkEvaluator(metrics)
    with pytest.raises(ConfigError, match="first, second"):
        evaluator.dataset_meta = {"sets": {"first": {}}}
