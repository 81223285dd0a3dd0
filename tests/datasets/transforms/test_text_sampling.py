"""What leaves the text sampling is consistent: boxes, labels, names, spans, regions, counts."""

import logging
import random

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from llmdet.datasets.transforms import RandomSamplingNegPos, RandomSamplingNegPos2
from llmdet.errors import DataError
from llmdet.prompts.conversation import ask
from llmdet.registry import TRANSFORMS


def regions(results):
    """(box, answer) of the conversations about regions."""
    said = [talk for talk in results["conversations"] if talk.kinds == {"region"}]
    return [(talk.slots[0].index, talk.turns[-1].text) for talk in said]


CLASSES = ("red dog", "cat", "car", "bus", "tree", "ball", "table", "chair")


def sample(labels, ignored=None, **fields):
    count = len(labels)
    boxes = torch.arange(count, dtype=torch.float32)[:, None] + torch.tensor([0.0, 0, 9, 9])
    return {
        "img_path": "a.jpg",
        "gt_bboxes": HorizontalBoxes(boxes.reshape(-1, 4)),
        "gt_bboxes_labels": np.array(labels, np.int64),
        "gt_ignore_flags": np.array(ignored or [0] * count, bool),
        **fields,
    }


def detection(labels, ignored=None, text=CLASSES):
    return sample(labels, ignored, text=text)


def grounding(labels, caption="A Red Dog and two cats", phrases=None):
    phrases = phrases or {
        0: {"phrase": "a red dog", "tokens_positive": [[2, 9]]},
        5: {"phrase": ["cats", "two cats"], "tokens_positive": [[14, 22]]},
    }
    return sample(labels, text=caption, phrases=phrases)


@pytest.fixture
def make(bert_folder):
    def build(**settings):
        return RandomSamplingNegPos(bert_folder, **settings)

    return build


def named(results):
    """Box number -> name, read from the prompt."""
    boxes = results["gt_bboxes"][:, 0].int().tolist()
    names = {
        label: results["text"][slice(*spans[0])]
        for label, spans in results["tokens_positive"].items()
    }
    return {b: names[label] for b, label in zip(boxes, results["gt_bboxes_labels"], strict=True)}


@pytest.mark.parametrize("text", [CLASSES, {str(i): n for i, n in enumerate(CLASSES)}])
def test_each_box_keeps_its_class_whatever_the_order_of_names(make, text):
    transform = make(num_sample_negative=5)
    orders = set()
    for _ in range(20):
        results = transform(detection([0, 3, 0], text=text))
        assert named(results) == {0: "red dog", 1: "bus", 2: "red dog"}
        orders.add(results["text"])
    assert len(orders) > 10


def test_ids_and_token_map_of_the_text_travel_with_the_sample(make):
    for results in (make()(detection([0, 3])), make()(grounding([5, 0]))):
        (made,) = results["tokenized"]
        assert made.text == results["text"]
        assert made.token_map[results["gt_bboxes_labels"]].any(axis=1).all()
        assert make().tokenizer(results["prompt"]) == (made,)
    assert "tokenized" not in make(upstream=True)(detection([0]))  # it may exceed the limit


@pytest.mark.parametrize("name", ["", "\u200b"])
def test_a_class_without_a_token_is_an_error_that_names_the_image(make, name):
    transform = make(num_sample_negative=0)
    assert transform(detection([0], text=("cat", name)))["text"] == "cat. "
    with pytest.raises(DataError, match=r"^a\.jpg: .*no token"):
        transform(detection([0, 1], text=("cat", name)))


def test_caption_words_and_labels_stay_together(make):
    results = make()(grounding([5, 0, 5]))
    assert results["text"] == "A Red Dog and two cats. "
    assert results["gt_bboxes_labels"].tolist() == [5, 0, 5]
    assert results["tokens_positive"] == {0: [[2, 9]], 5: [[14, 22]]}


def test_label_map_of_a_data_set_is_not_changed_by_drawing_names(make):
    label_map = {"0": "boots/shoes", "1": "cat"}
    transform = make()
    seen = {named(transform(detection([0], text=label_map)))[0] for _ in range(40)}
    assert seen == {"boots", "shoes"}
    assert label_map == {"0": "boots/shoes", "1": "cat"}


def test_names_may_come_from_a_label_map_file(make, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"0": "cat", "1": "dog"}')
    results = make(label_map_file=str(path))(sample([1]))
    assert named(results) == {0: "dog"}


def test_an_image_without_boxes_gets_a_prompt_of_negatives(make):
    results = make(num_region_caption=4)(detection([]))
    assert results["text"]
    assert results["tokens_positive"] == {}
    assert results["gt_bboxes"].shape == (0, 4)
    assert results["conversations"] == ()
    assert make()(grounding([]))["tokens_positive"] == {}


def test_boxes_of_classes_beyond_the_limit_go_with_all_their_arrays_and_are_counted(make):
    transform = make(max_tokens=5)  # room for one class of one word or two
    results = transform(detection([0, 1, 0, 2]))
    kept = len(results["gt_bboxes"])
    assert 0 < kept < 4
    assert len(results["gt_bboxes_labels"]) == len(results["gt_ignore_flags"]) == kept
    assert len(results["tokenized"][0].ids) <= 5
    counts = transform.dropped.counts
    assert counts["box of a class that exceeds the token limit"] == 4 - kept


def test_negatives_cut_by_the_limit_are_counted(make):
    transform = make(max_tokens=4, full_sampling_prob=1.0)
    assert transform(detection([1]))["text"] == "cat. "
    assert transform.dropped.counts == {"negative class that exceeds the token limit": 7}


def test_boxes_of_phrases_without_words_or_room_are_counted_by_cause(make):
    phrases = {
        0: {"phrase": "dog", "tokens_positive": [[0, 3]]},
        1: {"phrase": "blank", "tokens_positive": [[3, 4]]},
        2: {"phrase": "car", "tokens_positive": [[20, 23]]},
    }
    transform = make(max_tokens=6)
    results = transform(grounding([0, 1, 2, 2], "dog cat red green a car", phrases))
    assert results["gt_bboxes_labels"].tolist() == [0]
    assert transform.dropped.counts == {
        "box of a phrase that exceeds the token limit": 2,
        "box of a phrase that has no word in the caption": 1,
    }


def test_crowds_are_not_learnt_and_their_classes_are_not_denied(make):
    transform = make(full_sampling_prob=1.0, num_region_caption=9)
    for _ in range(10):
        results = transform(detection([1, 2, 3], ignored=[0, 1, 1]))
        assert named(results) == {0: "cat"}
        assert "car" not in results["text"]
        assert "bus" not in results["text"]
        assert [box for box, _ in regions(results)] == [0]


def test_regions_point_at_the_boxes_that_are_left(make):
    transform = make(max_tokens=5, num_region_caption=16)
    for _ in range(20):
        results = transform(detection([0, 1, 0, 2]))
        names = list(named(results).values())
        drawn = regions(results)
        assert sorted(box for box, _ in drawn) == list(range(len(names)))
        answers = {"red dog": "Red dog.", "cat": "Cat.", "car": "Car."}
        assert [answer for _, answer in drawn] == [answers[names[box]] for box, _ in drawn]


def test_regions_are_described_by_one_of_their_phrases(make):
    transform = make(num_region_caption=2)
    drawn = [regions(transform(grounding([5, 0, 5]))) for _ in range(40)]
    assert all(len(pairs) == 2 for pairs in drawn)
    assert {box for pairs in drawn for box, _ in pairs} == {0, 1, 2}
    assert {answer for pairs in drawn for _, answer in pairs} == {"Red dog.", "Cats."}
    assert make()(grounding([0]))["conversations"] == ()


def test_regions_come_behind_the_conversations_of_the_row(make):
    caption = ask("<image>\nWhat?", "A red dog.")
    results = make(num_region_caption=1)(grounding([0]) | {"conversations": (caption,)})
    first, second = results["conversations"]
    assert first == caption
    assert second.kinds == {"region"}


def test_an_image_with_a_conversation_alone_gets_no_prompt(make):
    alone = grounding([]) | {"conversations": (ask("<image>\nWhat?", "A dog."),), "phrases": {}}
    del alone["text"]
    results = make(num_region_caption=4)(alone)
    assert "prompt" not in results
    assert results["gt_bboxes"].shape == (0, 4)
    assert len(results["conversations"]) == 1


def test_a_region_without_a_word_is_left_out_and_counted(make):
    phrases = {0: {"phrase": " . ", "tokens_positive": [[2, 9]]}}
    transform = make(num_region_caption=2)
    assert transform(grounding([0], phrases=phrases))["conversations"] == ()
    assert transform.dropped.counts == {"region phrase without a word": 1}


@pytest.mark.parametrize("upstream", [False, True])
def test_equal_seeds_give_equal_samples(make, upstream):
    outputs = []
    for _ in range(2):
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        results = make(upstream=upstream, num_region_caption=3)(detection([0, 1, 2]))
        outputs.append((results["text"], results["tokens_positive"], results["conversations"]))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "no class names"), ({"text": "a dog"}, "no list of class names")],
)
def test_a_sample_without_names_is_refused(make, fields, message):
    with pytest.raises(DataError, match=f"a.jpg: .*{message}"):
        make()(sample([0], **fields))


@pytest.mark.usefixtures("scope")
def test_upstreams_name_and_arguments_are_understood(bert_folder, caplog):
    with caplog.at_level(logging.WARNING):
        transform = TRANSFORMS.build(
            dict(
                type="RandomSamplingNegPos2",
                tokenizer_name=bert_folder,
                tokenizer_name2="qwen",
                lmm_max_token_length=1600,
                num_region_caption=16,
            )
        )
    assert isinstance(transform, RandomSamplingNegPos2)
    assert transform.num_region_caption == 16
    assert "ignores tokenizer_name2 and lmm_max_token_length" in caplog.text
    assert type(
        TRANSFORMS.build(dict(type="RandomSamplingNegPos", tokenizer_name=bert_folder))
    ) is (RandomSamplingNegPos)
