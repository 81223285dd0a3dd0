"""Metrics whose images have label spaces of their own equal the official tools."""

import numpy as np
import pytest
import torch

from llmdet.errors import DataError
from llmdet.evaluation.detections import read_npz_detections
from llmdet.registry import METRICS
from llmdet.testing.golden import assert_equal_metrics, case_folder, expected
from llmdet.utils.files import read_json


def described_samples(images, detections):
    """Each image asks for the categories that are predicted in it, in an order of its own."""
    for image in images:
        rows = np.flatnonzero(detections.image_ids == image)
        ids, labels = np.unique(detections.category_ids[rows], return_inverse=True)
        yield {
            "img_id": image,
            "category_ids": ids[::-1].tolist(),
            "pred_instances": {
                "bboxes": torch.from_numpy(detections.boxes[rows]),
                "scores": torch.from_numpy(detections.scores[rows]),
                "labels": torch.from_numpy(len(ids) - 1 - labels),
            },
        }


def evaluate(metric, samples):
    for sample in samples:
        metric.process(None, [sample])
    return {name.split("/", 1)[-1]: value for name, value in metric.evaluate(0).items()}


@pytest.mark.parametrize("split", ["full", "pres", "abs"])
def test_d3_equals_its_script(split):
    folder = case_folder("d3_dod/syn")
    ann_file = folder / f"d3_{split}_annotations.json.gz"
    metric = METRICS.build({"type": "D3Metric", "ann_file": str(ann_file)})
    images = [image["id"] for image in read_json(ann_file)["images"]]
    detections = read_npz_detections(folder / "preds.npz")
    ours = evaluate(metric, described_samples(images, detections))
    theirs = expected(folder, split)
    assert_equal_metrics(ours, {k: v for k, v in theirs.items() if not k.endswith("4dec")})
    lengths = {k.removesuffix("_4dec"): v for k, v in theirs.items() if k.endswith("4dec")}
    assert_equal_metrics(ours, lengths, tolerance=0.5e-4)


def test_ovdeval_equals_its_script():
    folder = case_folder("ovdeval/syn")
    metric = METRICS.build({"type": "OVDEvalMetric", "ann_file": str(folder / "gt.json.gz")})
    images = [image["id"] for image in read_json(folder / "gt.json.gz")["images"]]
    samples = described_samples(images, read_npz_detections(folder / "preds.npz"))
    assert_equal_metrics(evaluate(metric, samples), expected(folder, "nms_ap"))


def omnilabel_samples(folder):
    records = {}
    for record in read_json(folder / "preds.json.gz"):
        records.setdefault(record["image_id"], []).append(record)
    for image, rows in records.items():
        flat = [
            (row["bbox"], score, description)
            for row in rows
            for description, score in zip(row["description_ids"], row["scores"], strict=True)
        ]
        boxes = torch.tensor([box for box, _, _ in flat])
        boxes[:, 2:] += boxes[:, :2]
        ids = [description for _, _, description in flat]
        yield {
            "img_id": image,
            "category_ids": ids,
            "pred_instances": {
                "bboxes": boxes,
                "scores": torch.tensor([score for _, score, _ in flat]),
                "labels": torch.arange(len(ids)),
            },
        }


def test_omnilabel_equals_its_tools():
    folder = case_folder("omnilabel/syn")
    metric = METRICS.build({"type": "OmniLabelMetric", "ann_file": str(folder / "gt.json.gz")})
    ours = evaluate(metric, omnilabel_samples(folder))
    theirs = {
        f"{item['metric']} {item['description']}": item["value"]
        for item in expected(folder, "omnilabel")
        if item["iou"] == "0.50:0.95"
    }
    assert_equal_metrics(ours, theirs)


def test_omnilabel_of_descriptions_alone_says_nothing_of_categories():
    folder = case_folder("omnilabel/syn")
    settings = {"type": "OmniLabelMetric", "ann_file": str(folder / "gt.json.gz")}
    samples = list(omnilabel_samples(folder))
    everything = evaluate(METRICS.build(dict(settings)), samples)
    ours = evaluate(METRICS.build({**settings, "categories": False}), samples)
    assert ours == {name: value for name, value in everything.items() if "categ" not in name}
    assert next(iter(ours)) == "AP descr"  # the best checkpoint is chosen by it


def test_a_sample_without_its_label_space_is_an_error():
    folder = case_folder("ovdeval/syn")
    metric = METRICS.build({"type": "OVDEvalMetric", "ann_file": str(folder / "gt.json.gz")})
    sample = next(described_samples([0], read_npz_detections(folder / "preds.npz")))
    del sample["category_ids"]
    with pytest.raises(DataError, match="meta_keys"):
        metric.process(None, [sample])
