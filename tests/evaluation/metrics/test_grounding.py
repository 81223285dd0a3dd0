"""Expression and phrase metrics equal their functions, fed sample by sample."""

import numpy as np
import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.evaluation.expressions import read_expression_boxes, read_expressions
from llmdet.evaluation.flickr30k import read_flickr30k, read_flickr30k_predictions
from llmdet.registry import METRICS
from llmdet.testing.golden import assert_equal_metrics, case_folder, expected


def expression_samples(folder):
    boxes = read_expression_boxes(folder / "preds.npz")
    for expression in read_expressions(folder / "gt_mdetr_style.json.gz"):
        predicted = boxes.get(expression.id)
        count = 0 if predicted is None else len(predicted.scores)
        yield {
            "img_id": expression.id,
            "pred_instances": {
                "bboxes": torch.tensor(predicted.boxes if count else np.zeros((0, 4))),
                "scores": torch.tensor(predicted.scores if count else np.zeros(0)),
                "labels": torch.zeros(count, dtype=torch.int64),
            },
        }


def evaluate(metric, samples):
    for sample in samples:
        metric.process(None, [sample])
    return {name.split("/", 1)[-1]: value for name, value in metric.evaluate(0).items()}


def test_referring_expressions_equal_mmdet_on_sorted_boxes():
    folder = case_folder("refexp/syn_unsorted")
    metric = METRICS.build(
        {"type": "RefExpMetric", "ann_file": str(folder / "gt_mdetr_style.json.gz")}
    )
    ours = evaluate(metric, expression_samples(folder))
    assert_equal_metrics(ours, expected(folder, "refexp_iou_sorted"))


@pytest.mark.parametrize(
    ("settings", "key"),
    [({}, "grefcoco_official_giou"), ({"criterion": "iou"}, "mmdet_all_targets_iou")],
)
def test_generalised_expressions_equal_the_official_program(settings, key):
    folder = case_folder("grefcoco/syn")
    ann_file = str(folder / "gt_mdetr_style.json.gz")
    metric = METRICS.build({"type": "gRefCOCOMetric", "ann_file": ann_file, **settings})
    assert_equal_metrics(evaluate(metric, expression_samples(folder)), expected(folder, key))


def flickr_samples(folder):
    predictions = read_flickr30k_predictions(folder / "preds.jsonl.gz")
    sentences = read_flickr30k(folder / "gt_simple.jsonl.gz")
    for number, (key, phrases) in enumerate(sentences.items()):
        parts = [np.asarray(boxes, np.float32) for boxes in predictions[key]]
        counts = [len(part) for part in parts]
        ids = np.repeat(np.arange(len(phrases)), [len(phrase.boxes) for phrase in phrases])
        boxes = np.concatenate([phrase.boxes for phrase in phrases])
        yield {
            "img_id": number,
            "phrases": ["phrase"] * len(phrases),
            "phrase_ids": ids.tolist(),
            "gt_instances": {"bboxes": torch.tensor(boxes)},
            "pred_instances": {
                "bboxes": torch.tensor(np.concatenate(parts)),
                "scores": torch.cat([1 - torch.arange(count) / 1000 for count in counts]),
                "labels": torch.repeat_interleave(torch.tensor(counts)),
            },
        }


@pytest.mark.parametrize(("merge", "key"), [(False, "any_box"), (True, "merged_boxes")])
def test_phrase_recall_equals_the_reference_evaluator(merge, key):
    folder = case_folder("flickr30k/syn_entities")
    metric = METRICS.build({"type": "Flickr30kMetric", "merge_boxes": merge})
    ours = evaluate(metric, flickr_samples(folder))
    theirs = expected(folder, key)
    names = {name.removesuffix("_all") for name in theirs if name.endswith("_all")}
    assert_equal_metrics(ours, {name: theirs[f"{name}_all"] for name in names})


def test_a_threshold_of_another_protocol_is_refused(tmp_path):
    (tmp_path / "gt.json").write_text("{}")
    with pytest.raises(ConfigError, match="iou_thrs must be"):
        METRICS.build(
            {"type": "RefExpMetric", "ann_file": str(tmp_path / "gt.json"), "iou_thrs": 0.7}
        )
