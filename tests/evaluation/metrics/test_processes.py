"""Metrics give the same numbers, to the last digit, with one process and with two."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dist import get_dist_info

from llmdet.errors import ConfigError
from llmdet.evaluation.detections import read_npz_detections
from llmdet.registry import METRICS
from llmdet.testing.golden import assert_equal_metrics, case_folder, expected
from llmdet.testing.processes import run_processes
from llmdet.utils.files import read_json

COCO = ("coco/syn_main", {"type": "CocoMetric"})
LVIS = ("lvis/syn_edge", {"type": "LVISMetric"})
FIXED = ("lvis/syn_fixed_ties_topk600", {"type": "LVISFixedAPMetric", "topk": 600})


def samples_of(folder: Path) -> tuple[list[dict], list[str]]:
    """One data sample per annotated image, in file order, and the class names."""
    truth = read_json(folder / "gt.json.gz")
    detections = read_npz_detections(folder / "preds.npz")
    names = [category["name"] for category in truth["categories"]]
    label = {category["id"]: index for index, category in enumerate(truth["categories"])}
    samples = []
    for image in truth["images"]:
        rows = np.flatnonzero(detections.image_ids == image["id"])
        labels = [label[category] for category in detections.category_ids[rows].tolist()]
        instances = {
            "bboxes": torch.from_numpy(detections.boxes[rows]),
            "scores": torch.from_numpy(detections.scores[rows]),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        samples.append({"img_id": image["id"], "pred_instances": instances})
    return samples, names


def evaluate(case: str, settings: dict) -> dict[str, float]:
    """Evaluate as one of the processes there are, the last round filled up as samplers do."""
    rank, world = get_dist_info()
    folder = case_folder(case)
    samples, names = samples_of(folder)
    metric = METRICS.build(settings | {"ann_file": str(folder / "gt.json.gz")})
    metric.dataset_meta = {"classes": names}
    # the images that fill up the last round go to another process than the first time
    padded = samples + samples[:world][::-1] * (world > 1)
    for start in range(rank, len(padded), world * 4):
        metric.process(None, padded[start : start + world * 4 : world])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize(("case", "settings"), [COCO, LVIS, FIXED])
def test_two_processes_with_a_padded_sampler_give_the_numbers_of_one(tmp_path, case, settings):
    one = evaluate(case, settings)
    assert run_processes(2, evaluate, case, settings, folder=tmp_path) == [one, one]


def test_fixed_ap_metric_equals_the_reference_program():
    case, settings = "lvis/syn_edge", {"type": "LVISFixedAPMetric"}
    values = evaluate(case, settings)
    theirs = expected(case_folder(case), "lvis_fixed_ap_mmdet")
    ours = {name.removeprefix("lvis_fixed_ap/"): value for name, value in values.items()}
    assert_equal_metrics(ours, {k: v for k, v in theirs.items() if k.startswith("AP")})


def test_lvis_metric_equals_lvis_api():
    case, settings = LVIS
    values = evaluate(case, settings)
    theirs = expected(case_folder(case), "lvis_ap")
    ours = {name.removeprefix("lvis/bbox_"): value for name, value in values.items()}
    assert_equal_metrics(ours, {k: v for k, v in theirs.items() if k.startswith("AP")})


def test_coco_metric_equals_mmdet_to_its_three_decimals():
    case, settings = COCO
    values = evaluate(case, settings)
    theirs = expected(case_folder(case), "mmdet_CocoMetric")["metrics"]
    ours = {name.removeprefix("coco/"): round(value, 3) for name, value in values.items()}
    assert_equal_metrics(ours, theirs)


def test_fixed_ap_refuses_detections_that_were_limited_over_all_classes_of_an_image():
    folder = case_folder("lvis/syn_edge")
    sample = {**samples_of(folder)[0][0], "limit_per": "image"}
    metric = METRICS.build({"type": "LVISFixedAPMetric", "ann_file": str(folder / "gt.json.gz")})
    with pytest.raises(ConfigError, match="limit_per='chunk'"):
        metric.process(None, [sample])
    metric.process(None, [{**samples_of(folder)[0][1], "limit_per": "chunk"}])
