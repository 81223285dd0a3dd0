"""Masks that models say, judged by rows of conversations and by grounded captions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llmdet.datasets.masks import encode_mask
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.mask_runners import run_gcg, run_res
from llmdet.evaluation.phrase_similarity import encode_phrases
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.evaluation.suite import run_metric
from llmdet.prompts.mask_tasks import NO_TARGET
from llmdet.testing.mask_benchmarks import write_mask_miniature


def rectangle(x1, y1, x2, y2, size=(20, 30)):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


LEFT, RIGHT = rectangle(0, 0, 10, 10), rectangle(20, 0, 30, 10)


@pytest.fixture
def rows(tmp_path):
    """Three questions with masks, one of them with two, one without target, one about words."""
    answers = [
        "It is <mask:0>.",
        "<p>a box</p> <mask> and <mask:0>",  # the region behind that of the mark before
        NO_TARGET,
        "A red box.",
        "It is <mask:2>.",
    ]
    regions = [{"segmentation": LEFT}, {"segmentation": RIGHT}, {"bbox": [0, 10, 30, 20]}]
    turns = []
    for text in answers:
        turns += [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": text}]
    path = tmp_path / "rows.jsonl"
    row = {"filename": "a.jpg", "height": 20, "width": 30, "regions": regions}
    path.write_text(json.dumps(row | {"conversations": turns}) + "\n")
    return path


def said(path, masks):
    with PredictionWriter(path, PredictionHeader("tiny")) as writer:
        for question, found in masks.items():
            phrases = [""] * len(found)
            writer.write(prediction_row(question, text="...", phrases=phrases, masks=found))
    return path


PERFECT = {0: [LEFT], 1: [LEFT, RIGHT], 2: [], 3: [], 4: [rectangle(0, 10, 30, 20)]}


def test_a_perfect_answer_gets_the_best_number_and_a_missing_mask_costs_its_share(rows, tmp_path):
    perfect = run_res(rows, said(tmp_path / "perfect.jsonl", PERFECT))
    assert perfect["gIoU"] == pytest.approx(1, abs=1e-5)
    assert (perfect["cIoU"], perfect["without_mask"]) == (1, 0)
    silent = run_res(rows, said(tmp_path / "silent.jsonl", PERFECT | {0: []}))
    assert silent["gIoU"] == pytest.approx(0.75, abs=1e-5)
    assert silent["cIoU"] == pytest.approx((200 + 300) / 600)
    assert silent["without_mask"] == 0.25
    half = run_res(rows, said(tmp_path / "half.jsonl", PERFECT | {1: [RIGHT]}))
    assert half["gIoU"] == pytest.approx(0.875, abs=1e-5)
    too_much = run_res(rows, said(tmp_path / "much.jsonl", PERFECT | {2: [LEFT]}))
    assert too_much["gIoU"] == pytest.approx(0.75, abs=1e-5)


def test_what_was_not_asked_is_refused_or_counts_as_silence(rows, tmp_path):
    known = {question: masks for question, masks in PERFECT.items() if question != 0}
    path = said(tmp_path / "part.jsonl", known)
    with pytest.raises(DataError, match=r"3 of 4 questions \(the first that is missing: 0"):
        run_res(rows, path)
    assert run_res(rows, path, partial=True)["gIoU"] == pytest.approx(0.75, abs=1e-5)


def test_predictions_that_cannot_be_compared_are_named(rows, tmp_path):
    other = said(tmp_path / "other.jsonl", PERFECT | {0: [rectangle(0, 0, 1, 1, (5, 5))]})
    with pytest.raises(DataError, match=r"question 0 has a mask of the size \[5, 5\]"):
        run_res(rows, other)
    words = tmp_path / "words.jsonl"
    with PredictionWriter(words, PredictionHeader("tiny")) as writer:
        writer.write(prediction_row(0, text="It is there."))
    with pytest.raises(DataError, match=r"question 0 has no masks: test a model with"):
        run_res(rows, words)
    rows.write_text(rows.read_text().replace("mask", "mark").replace(NO_TARGET, "None."))
    with pytest.raises(DataError, match="no answer shows a mask"):
        run_res(rows, words)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def captions(tmp_path):
    """The file of the test split, and what a perfect model answers."""
    answers = write_mask_miniature("gcg", tmp_path)
    folder = tmp_path / "data/grandf/GranDf/annotations/val_test"
    right = {image: answer for (split, image), answer in answers.items() if split == "test"}
    return folder / "test_gcg_coco_caption_gt.json", right


def predicted(answers):
    return [
        prediction_row(image, text=a.text, phrases=a.phrases, masks=a.masks)
        for image, a in answers.items()
    ]


def without_last_mask(answer):
    text = answer.text.rpartition(" [SEG]")[0]
    return replace(answer, text=text, phrases=answer.phrases[:-1], masks=answer.masks[:-1])


def test_a_mask_that_is_not_said_costs_strictly_where_it_officially_costs_nothing(captions, bert):
    truth, right = captions
    options = {"captions": False, "text_encoder": bert}
    perfect = run_gcg(truth, predicted(right), **options)
    best = {"mIoU": 1, "mask_recall": 1}
    assert {name: perfect[name] for name in best} == perfect["strict"] == best
    assert perfect["mask_AP"]["AP50"] == pytest.approx(1)
    fewer = run_gcg(truth, predicted(right | {1: without_last_mask(right[1])}), **options)
    assert fewer["mIoU"] == 1
    assert fewer["strict"] == {"mIoU": 0.75, "mask_recall": 0.75}
    assert fewer["mask_recall"] == 0.75
    assert fewer["mask_AP"]["AP50"] < 1
    swapped = replace(right[1], phrases=("zzz qqq", right[1].phrases[1]))
    monotone = run_gcg(truth, predicted(right | {1: swapped}), **options)
    assert monotone["mask_recall"] <= monotone["strict"]["mask_recall"]
    nothing = run_gcg(truth, predicted({1: right[1]}), **options)  # image 2 was never answered
    assert nothing["mIoU"] == nothing["mask_recall"] == 0.5


def test_captions_are_judged_without_their_marks_and_files_give_the_same(captions, tmp_path, bert):
    truth, right = captions
    folder = tmp_path / "official"
    folder.mkdir()
    for image, answer in right.items():
        record = {"caption": "a cat and a dog", "phrases": answer.phrases}
        content = record | {"pred_masks": answer.masks}
        (folder / f"sa_{image}.json").write_text(json.dumps(content))
    preds = tmp_path / "preds.jsonl"
    with PredictionWriter(preds, PredictionHeader("tiny")) as writer:
        for row in predicted(right):
            writer.write(row)
    options = ["captions=false", f"text_encoder={bert}"]
    values = [run_metric("gcg", truth, path, options).values for path in (preds, folder)]
    assert values[0] == values[1]

    from llmdet.evaluation.loading import load_gcg

    assert {each.caption for each in load_gcg(preds).values()} == {"a cat and a dog"}


def test_phrases_are_the_mean_of_all_their_tokens(bert):
    import torch
    from transformers import AutoModel, AutoTokenizer

    phrases = ["a", "a dog and a cat"]
    found = encode_phrases(phrases, bert)
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    for phrase in phrases:
        with torch.no_grad():
            states = model(**tokenizer(phrase, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(torch.tensor(found[phrase]), states[0].mean(0))
    with pytest.raises(ConfigError, match="text_encoder"):
        encode_phrases(["a"], "/nowhere")
