"""Precision and recall of chosen boxes, and names of given ones."""

import json

import numpy as np
import pytest

from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import parse_coco, parse_lvis
from llmdet.evaluation.humanref import (
    HumanRefRecord,
    humanref_scores,
    read_humanref_predictions,
)
from llmdet.evaluation.phrase_similarity import phrase_similarity, pooling_of
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.evaluation.retrieval import retrieval_scores
from llmdet.evaluation.suite import NO_SOURCE, protocol_note, run_metric

BOX, FAR, CROWD = [0, 0, 10, 10], [50, 50, 10, 10], [20, 0, 20, 20]  # x, y, width, height
NAMES = ("dog", "trash_can:lid")


def content(boxes, **image):
    """COCO's JSON of (image, category, box, is a crowd)."""
    return {
        "images": [
            {"id": n, "width": 90, "height": 90, "file_name": f"{n}.jpg", **image} for n in (1, 2)
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd, "area": 100}
            for n, (i, c, box, crowd) in enumerate(boxes, 1)
        ],
        "categories": [
            {"id": n, "name": name, "frequency": "f"} for n, name in enumerate(NAMES, 1)
        ],
    }


def chosen(*rows):
    """Detections of (image, category, box, score)."""
    images, categories, boxes, scores = map(np.array, zip(*rows, strict=True))
    return DetectionTable(images, categories, boxes.astype(float), scores, mode="xywh")


def test_boxes_are_matched_one_to_one_in_their_class_and_crowds_do_not_count():
    truth = parse_coco(content([(1, 1, BOX, 0), (1, 2, FAR, 0), (2, 1, BOX, 0), (1, 1, CROWD, 1)]))
    near = [0, 0, 10, 9]
    found = chosen(
        (1, 1, BOX, 0.9),
        (1, 1, near, 0.8),  # the same again
        (1, 1, FAR, 0.7),  # of another class
        (1, 1, [25, 5, 5, 5], 0.6),  # in the crowd
        (2, 1, near, 0.1),
    )
    values = retrieval_scores(truth, found)
    assert (values["boxes"], values["annotated"]) == (4, 3)
    assert values["precision_50"] == 2 / 4
    assert values["recall_50"] == 2 / 3
    assert values["f1_50"] == pytest.approx(2 * 2 / (4 + 3))
    none = retrieval_scores(truth, found.select(np.zeros(0, np.int64)))
    assert (none["precision_50"], none["recall_50"], none["f1_50"]) == (0, 0, 0)


def test_of_lvis_only_what_was_looked_for_counts():
    file = content([(1, 1, BOX, 0)], neg_category_ids=[], not_exhaustive_category_ids=[1])
    file["images"][1] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    found = chosen(
        (1, 1, BOX, 0.9),
        (1, 1, FAR, 0.8),  # not every dog is boxed
        (1, 2, FAR, 0.7),  # nobody looked
        (2, 2, FAR, 0.6),  # verified to be absent
    )
    values = retrieval_scores(parse_lvis(file), found)
    assert (values["boxes"], values["annotated"], values["precision_50"]) == (2, 1, 0.5)


def test_the_average_of_humanref_is_over_domains_and_rejections_are_a_share():
    box = np.array([[0.0, 0, 9, 9]])
    records = [HumanRefRecord(n, "attribute", "a", box, 2) for n in range(3)]
    records += [HumanRefRecord(3, "position", "p", box, 2)]
    records += [HumanRefRecord(n, "rejection", "r", box[:0], 2) for n in (4, 5)]
    values = humanref_scores(records, {3: box.tolist(), 4: box.tolist(), 5: []})
    assert values["overall"]["recall_50"] == 0.25
    assert values["average"]["recall_50"] == values["average"]["density_f1_mean"] == 0.5
    assert (values["rejection_score"], values["rejection_score_count"]) == (0.5, 1)
    assert humanref_scores(records[:1], {})["rejection_score"] == -1


@pytest.mark.parametrize("prediction", [[10, 10], 3, [1, 2, 3, 4, 0.5]])
def test_predictions_of_humanref_that_are_no_boxes_are_refused_with_their_line(
    tmp_path, prediction
):
    path = tmp_path / "preds.jsonl"
    good = json.dumps({"id": 1, "extracted_predictions": [BOX, []]})
    path.write_text(f"{good}\n")
    assert read_humanref_predictions(path) == {1: [BOX, []]}
    bad = json.dumps({"id": 2, "extracted_predictions": [prediction]})
    path.write_text(f"{good}\n{bad}\n")
    with pytest.raises(DataError, match=r"preds\.jsonl:2: .* points are not scored"):
        read_humanref_predictions(path)


def test_a_report_of_humanref_says_whose_candidates_were_chosen_from(tmp_path):
    gt = tmp_path / "annotations.jsonl"
    record = {"id": 1, "domain": "position", "sub_domain": "p", "answer_boxes": [BOX]}
    gt.write_text(json.dumps({**record, "candidate_boxes": [BOX]}))
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"id": 1, "extracted_predictions": [BOX]}))
    assert run_metric("humanref", gt, own).as_dict()["asked_of"] == NO_SOURCE
    protocol = {"candidates": {"file": "annotations.jsonl", "annotated": True}}
    path = tmp_path / "preds.jsonl"
    with PredictionWriter(path, PredictionHeader("tiny", protocol=protocol)) as writer:
        writer.write(prediction_row(1, [BOX], [1.0], [0]))
    report = run_metric("humanref", gt, path)
    assert report.protocol == protocol_note(report.predictions)
    assert report.protocol == "candidates as annotated, every answer among them: annotations.jsonl"
    assert report.values["average"]["recall_mean"] == 1
    found = tmp_path / "found.jsonl"
    with PredictionWriter(found, PredictionHeader("upn")) as writer:
        writer.write(prediction_row(1, [BOX], [1.0], [0]))
    assert run_metric("humanref", gt, found).protocol.startswith("boxes that upn found itself")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from llmdet.datasets.toy.models import tiny_bert

    folder = tmp_path_factory.mktemp("encoder")
    tiny_bert(folder, hidden_size=16, heads=2)
    return folder


def test_names_are_compared_with_those_of_annotations_in_words_and_in_meaning(encoder, tmp_path):
    gt, path = tmp_path / "gt.json", tmp_path / "preds.jsonl"
    boxes = [(1, 1, BOX, 0), (1, 2, FAR, 0), (1, 1, CROWD, 1), (2, 1, BOX, 0)]
    gt.write_text(json.dumps(content(boxes)))
    marked = "<ground>dog</ground><objects><obj0></objects>"
    with PredictionWriter(path, PredictionHeader("tiny")) as writer:
        writer.write(prediction_row(1, phrases=[marked, "a can lid"]))
        writer.write(prediction_row(2, text="Dog."))
    values = run_metric("region-classification", gt, path, [f"text_encoder={encoder}"]).values
    assert values["semantic_iou"] == pytest.approx((1 + 2 / 4 + 1) / 3)
    (alike,) = phrase_similarity(["a can lid"], ["trash can lid"], str(encoder))
    assert values["semantic_similarity"] == pytest.approx((1 + alike + 1) / 3)
    assert values["regions"] == 3
    assert "semantic_similarity" not in run_metric("region-classification", gt, path).values


def test_phrases_are_as_alike_as_the_means_of_their_states(encoder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["dog", "a trash can with a red lid"]
    model, tokenizer = (kind.from_pretrained(encoder) for kind in (AutoModel, AutoTokenizer))
    means = []
    for text in texts:
        with torch.no_grad():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        means.append(states.double().mean(0))
    wanted = torch.cosine_similarity(*means, dim=0).item()
    found = phrase_similarity([texts[0], texts[1]], [texts[1], texts[1]], str(encoder))
    assert found.tolist() == pytest.approx([wanted, 1], abs=1e-6)


def test_a_folder_says_how_its_states_become_a_vector(tmp_path):
    assert pooling_of(str(tmp_path)) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    settings = tmp_path / "1_Pooling" / "config.json"
    settings.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    assert pooling_of(str(tmp_path)) == "first"
    settings.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ConfigError, match="pooling_mode_max_tokens"):
        pooling_of(str(tmp_path))
    kind = '[{"type": "sentence_transformers.models.Dense"}]'
    (tmp_path / "modules.json").write_text(kind)
    with pytest.raises(ConfigError, match=r"a part of type .*Dense is not known"):
        pooling_of(str(tmp_path))
