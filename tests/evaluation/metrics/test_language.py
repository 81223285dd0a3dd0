"""What a model says is judged in a test loop by the numbers of tools/evaluate.py."""

import pickle

import numpy as np
import pytest

from llmdet.errors import DataError
from llmdet.evaluation.gcg import read_gcg_predictions
from llmdet.evaluation.metrics.reducers import Rows
from llmdet.evaluation.metrics.samples import row_of_sample
from llmdet.evaluation.metrics.shell import merge_ranks
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader
from llmdet.evaluation.suite import flatten, run_metric
from llmdet.registry import METRICS
from llmdet.testing.golden import case_folder
from llmdet.utils.files import read_json, read_jsonl


def pope(folder):
    for _, record in read_jsonl(folder / "answers.jsonl.gz"):
        yield {"img_id": record["question_id"], "pred_text": record["answer"]}


def humanref(folder):
    far = [0.0, 0.0, 1.0, 1.0]  # a box that is seen but not chosen
    for _, record in read_jsonl(folder / "predictions.jsonl.gz"):
        boxes = [box for box in record["extracted_predictions"] if box]
        yield {
            "img_id": record["id"],
            "pred_instances": {
                "bboxes": [far, *boxes],
                "scores": [1.0] * (1 + len(boxes)),
                "labels": [0] * (1 + len(boxes)),
            },
            "pred_indices": range(1, 1 + len(boxes)),
        }


def region_names(folder):
    said = read_json(folder / "preds_text.json.gz")
    by_image = {}
    for region, text in zip(read_json(folder / "gt.json.gz")["regions"], said, strict=True):
        by_image.setdefault(region["image_id"], []).append(text)
    for image, texts in by_image.items():
        yield {"img_id": image, "pred_phrases": texts}


def gcg(folder):
    for image, said in read_gcg_predictions(folder / "predictions.json.gz").items():
        yield {
            "img_id": image,
            "pred_text": said.caption,
            "pred_phrases": said.phrases,
            "pred_masks": said.masks,
        }


def segmentation(folder):
    for image in read_json(folder / "data.json.gz"):
        masks = [reference["pred"] for reference in image["refs"]]
        yield {"img_id": image["image_id"], "pred_masks": masks}


CASES = {  # name of the metric, folder, annotations, its own predictions, samples, options
    "POPEMetric": ("pope", "pope/syn", "questions.jsonl.gz", "answers.jsonl.gz", pope, {}),
    "HumanRefMetric": (
        "humanref",
        "humanref/syn",
        "annotations.jsonl.gz",
        "predictions.jsonl.gz",
        humanref,
        {"density": "persons"},
    ),
    "RegionClassificationMetric": (
        "region-classification",
        "region_classification/syn",
        "gt.json.gz",
        "preds_text.json.gz",
        region_names,
        {},
    ),
    "GCGMetric": ("gcg", "gcg/syn", ".", "predictions.json.gz", gcg, {"captions": False}),
    "ReferringSegmentationMetric": (
        "res",
        "res_seg/syn",
        "data.json.gz",
        None,
        segmentation,
        {"empty": "zero"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_in_memory_and_in_a_file_give_the_numbers_of_the_benchmarks_own_format(name, tmp_path):
    metric, case, gt, pred, samples, options = CASES[name]
    folder = case_folder(case)
    settings = [f"{key}={str(value).lower()}" for key, value in options.items()]
    if metric == "humanref":  # the official file leaves expressions without answer out
        settings.append("partial=true")
    pred = None if pred is None else folder / pred
    theirs = flatten(run_metric(metric, folder / gt, pred, settings).values)
    shell = METRICS.build({"type": name, "ann_file": str(folder / gt), **options})
    with PredictionWriter(tmp_path / "p.jsonl", PredictionHeader("m")) as writer:
        for sample in samples(folder):
            shell.process(None, [sample])
            writer.write(row_of_sample(sample))
    ours = {name.split("/", 1)[1]: value for name, value in shell.evaluate(0).items()}
    assert ours == theirs
    assert len(ours) > 0
    assert max(ours.values()) > 0
    filed = run_metric(metric, folder / gt, tmp_path / "p.jsonl", settings)
    assert flatten(filed.values) == theirs


def test_an_answer_without_words_is_named(tmp_path):
    folder = case_folder("pope/syn")
    metric = METRICS.build({"type": "POPEMetric", "ann_file": str(folder / "questions.jsonl.gz")})
    metric.process(None, [{"img_id": 7, "pred_masks": []}])
    with pytest.raises(DataError, match="image 7 has no text, which this metric judges"):
        metric.evaluate(0)


def test_a_region_without_a_name_is_an_error():
    folder = case_folder("region_classification/syn")
    metric = METRICS.build(
        {"type": "RegionClassificationMetric", "ann_file": str(folder / "gt.json.gz")}
    )
    first, *rest = region_names(folder)
    first["pred_phrases"] = first["pred_phrases"][1:]
    metric.process(None, [first, *rest])
    with pytest.raises(DataError, match="one phrase for each region"):
        metric.evaluate(0)


def test_captions_are_judged_by_their_text(monkeypatch, tmp_path):
    """The scorers need Java; what they are given does not."""
    folder = case_folder("caption/syn_region_oddtext")
    given = {}
    monkeypatch.setattr(
        "llmdet.evaluation.caption.caption_scores",
        lambda references, captions: given.update(captions) or {"CIDEr": 1.0},
    )
    metric = METRICS.build(
        {"type": "CaptionMetric", "ann_file": str(folder / "gt_coco_captions.json.gz")}
    )
    captions = {r["image_id"]: r["caption"] for r in read_json(folder / "preds.json.gz")}
    for image, text in captions.items():
        metric.process(None, [{"img_id": image, "pred_text": text}])
    assert metric.evaluate(0) == {"caption/CIDEr": 1.0}
    assert given == captions


def test_rows_of_two_processes_are_joined_in_order_and_once_each():
    ranks = []
    for images in ((5, 1), (3, 5)):
        rows = Rows()
        for image in images:
            rows.add(row_of_sample({"img_id": image, "pred_text": f"rank {len(ranks)}"}), {})
        payload = np.asarray(images), rows.columns()
        ranks.append(pickle.loads(pickle.dumps(payload)))
    seen, (images, rows, _) = merge_ranks(ranks)
    assert seen.tolist() == images.tolist() == [1, 3, 5]
    assert [row.text for row in rows] == ["rank 0", "rank 1", "rank 0"]
