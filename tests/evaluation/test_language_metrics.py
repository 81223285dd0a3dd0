"""HumanRef, POPE, region names, captions, conversations and masks: their rules at the edges."""

import gzip
import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from llmdet.errors import ConfigError, DataError
from llmdet.evaluation import caption, gcg
from llmdet.evaluation.flickr30k import GroundedPhrase, flickr30k_recall
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.evaluation.humanref import HumanRefRecord, humanref_scores
from llmdet.evaluation.loading import load_captions
from llmdet.evaluation.pope import pope_scores, says_yes
from llmdet.evaluation.region_classification import class_accuracy, semantic_iou
from llmdet.evaluation.res import res_scores

BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def record(identity=1, domain="position", answers=(BOX,), persons=4):
    return HumanRefRecord(identity, domain, "s", np.asarray(answers, float).reshape(-1, 4), persons)


@pytest.mark.parametrize(("predicted", "count"), [([], 1), ([[]], 1), ([BOX], 0)])
def test_an_empty_answer_rejects_whatever_its_brackets(predicted, count):
    values = humanref_scores([record(domain="rejection", answers=())], {1: predicted})
    assert values["rejection_score_count"] == count
    assert values["overall"]["count"] == 0


def test_boxing_everybody_is_punished_by_answers_or_by_persons():
    everybody = {1: [BOX, FAR, FAR, FAR]}
    f1 = 2 * 1 * 0.25 / 1.25
    official = humanref_scores([record()], everybody)["overall"]["density_f1_50"]
    readme = humanref_scores([record()], everybody, density="persons")["overall"]["density_f1_50"]
    assert official == pytest.approx(f1 / 4)
    assert readme == pytest.approx(f1)


def test_an_empty_box_counts_as_a_prediction():
    assert humanref_scores([record()], {1: [BOX, []]})["overall"]["precision_50"] == 0.5


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("No", False),
        ("no, there is not", False),
        ("NO", True),
        ("Nope", True),
        ("No\n", True),
        ("Unclear. No.", True),
        ("isn't", True),
        ("Yes, no", False),
        ("", True),
    ],
)
def test_answers_are_parsed_as_the_official_program_does(answer, yes):
    assert says_yes(answer) is yes


def test_a_question_without_answer_is_named():
    with pytest.raises(DataError, match="question 2"):
        pope_scores([{"question_id": 2, "label": "yes"}], {})


def test_class_accuracy_differs_by_who_counts_absent_classes():
    scores = np.asarray([[0.9, 0.1, 0.0], [0.9, 0.0, 0.1], [0.1, 0.2, 0.7]])
    values = class_accuracy(scores, np.asarray([0, 0, 0]), topk=(1, 2))
    assert values["top1"] == pytest.approx(2 / 3)
    assert values["top2"] == pytest.approx(2 / 3)
    assert values["mean_per_class_accuracy"] == pytest.approx(2 / 3)
    assert values["macro_top1"] == pytest.approx(1 / 3)


def test_word_overlap_ignores_case_and_the_words_before_a_colon():
    assert semantic_iou(["Answer: Traffic light."], ["traffic_light"]) == 1
    assert semantic_iou(["a dog"], ["dog"]) == 0.5


def test_phrases_and_predictions_must_agree_in_number():
    phrases = {("1", 0): [GroundedPhrase(("people",), np.asarray([BOX]))]}
    with pytest.raises(DataError, match="1 phrases with boxes but predictions for 2"):
        flickr30k_recall(phrases, {("1", 0): [[BOX], [BOX]]})
    with pytest.raises(DataError, match="sentence 0"):
        flickr30k_recall(phrases, {})


def test_a_phrase_with_two_types_counts_in_both_and_once_in_all():
    phrases = {
        ("1", 0): [
            GroundedPhrase(("people", "other"), np.asarray([BOX])),
            GroundedPhrase(("other",), np.asarray([BOX])),
        ]
    }
    values = flickr30k_recall(phrases, {("1", 0): [[FAR, BOX], []]}, topk=(1, 5))
    assert values["Recall@1_all"] == 0
    assert values["Recall@5_people"] == 1
    assert values["Recall@5_other"] == values["Upper_bound_all"] == 0.5


def rle(*columns):
    """A 4 x 4 mask of some full columns."""
    mask = np.zeros((4, 4), np.uint8, order="F")
    mask[:, list(columns)] = 1
    encoded = mask_utils.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_an_empty_mask_is_right_where_nothing_is_meant():
    images = [
        {"image_id": 1, "refs": [{"gt": rle(), "pred": rle()}, {"gt": rle(0, 1), "pred": rle(1)}]}
    ]
    assert res_scores(images)["gIoU"] == pytest.approx(0.75, abs=1e-5)
    assert res_scores(images, empty="zero")["gIoU"] == pytest.approx(0.25)
    assert res_scores(images)["cIoU"] == 0.5


def conversation(said, wanted=("cat", "dog")):
    masks = [rle(0), rle(2, 3)]
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 4}
        for i in range(2)
    ]
    boxes = parse_coco(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": annotations,
        }
    )
    encoded = [gcg.encode(mask, "mask") for mask in masks]
    truth = gcg.GCGTruth(boxes, encoded, {1: list(wanted)}, {1: ["a cat and a dog"]})
    return truth, {1: gcg.GCGPrediction("", list(said), encoded)}


def same(first, second):
    return float(first == second)


def test_recall_stops_at_the_first_pair_that_fails_officially():
    truth, predictions = conversation(["bird", "dog"])
    assert gcg.mask_recall(truth, predictions, same)["TP"] == 0
    assert gcg.mask_recall(truth, predictions, same, recall="continue")["TP"] == 1


def test_a_mask_without_phrase_costs_the_whole_image_officially():
    truth, predictions = conversation(["cat"])
    values = gcg.mask_recall(truth, predictions, same)
    assert (values["TP"], values["n_images_with_exception"]) == (0, 1)
    assert gcg.mask_recall(truth, predictions, same, recall="continue")["TP"] == 1


def test_a_phrase_without_embedding_is_named():
    with pytest.raises(DataError, match="'dog'"):
        gcg.embedding_similarity({"cat": [1.0]})("cat", "dog")


def test_captions_without_java_say_so(monkeypatch):
    monkeypatch.setattr(caption.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="need Java"):
        caption.caption_scores({1: ["a cat"]}, {1: "a cat"})


def test_captions_without_the_package_say_so(monkeypatch):
    monkeypatch.setattr(caption.shutil, "which", lambda name: "java")
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(ConfigError, match="pip install pycocoevalcap"):
        caption.caption_scores({1: ["a cat"]}, {1: "a cat"})


def test_two_captions_of_an_image_are_refused(tmp_path):
    records = [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    with pytest.raises(DataError, match="second caption"):
        load_captions(tmp_path / "p.json.gz")
