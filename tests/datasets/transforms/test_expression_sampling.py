"""Prompts of expressions: what is drawn, what fits, and which box answers to which words."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from llmdet.datasets.expressions import ExpressionPair
from llmdet.datasets.transforms import RandomSamplingNegPos, SampleExpressions
from llmdet.datasets.transforms.expression_sampling import (
    EXPRESSION_TOO_LONG,
    NEGATIVE_PASSED_OVER,
    NOTHING_TO_SAY,
)
from llmdet.errors import ConfigError, DataError


def pair(source, *positives, boxes=1, relation=None, category="", negatives=()):
    relation = relation or ("single" if boxes == 1 else "multi")
    return ExpressionPair(source, relation, [[0, 0, 1, 1]] * boxes, category, positives, negatives)


def sample(*pairs, boxes=None, **fields):
    """Each pair has boxes of its own, at x = 10 * (number of the box), unless they are given."""
    labels = [number for number, one in enumerate(pairs) for _ in one.boxes]
    given = [[10 * i, 0, 10 * i + 9, 9] for i in range(len(labels))] if boxes is None else boxes
    return {
        "img_path": "a.jpg",
        "gt_bboxes": HorizontalBoxes(torch.tensor(given, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.array(labels, np.int64),
        "gt_ignore_flags": np.zeros(len(labels), bool),
        "expressions": pairs,
        **fields,
    }


@pytest.fixture
def make(bert_folder):
    def build(**settings):
        return SampleExpressions(bert_folder, **settings)

    return build


def said(results):
    """Place of each box -> the expressions that its label stands for."""
    places = (results["gt_bboxes"][:, 0] / 10).int().tolist()
    words = [
        {results["text"][start:end] for start, end in results["tokens_positive"][label]}
        for label in results["gt_bboxes_labels"].tolist()
    ]
    return dict(zip(places, words, strict=True))


def expressions(results):
    return results["text"].removesuffix(". ").split(". ")


def test_each_box_answers_to_an_expression_of_its_pair_among_negatives_in_any_order(make):
    dog = pair("llm", "A red dog.", boxes=2, negatives=["a blue dog", "a cat"])
    car = pair("llm", "the car", "a car that stands", negatives=["a bus"])
    orders = set()
    for _ in range(30):
        results = make()(sample(dog, car))
        words = said(results)
        assert words[0] == words[1] == {"a red dog"}
        assert words[2] < {"the car", "a car that stands"}
        assert len(words[2]) == 1
        assert sorted({*expressions(results)} - words[0] - words[2]) == [
            "a blue dog",
            "a bus",
            "a cat",
        ]
        (tokenized,) = results["tokenized"]
        assert tokenized.text == results["text"]
        orders.add(results["text"])
    assert len(orders) > 20


def test_sources_are_drawn_by_their_shares(make):
    names = ("vlm_short", "llm", "vlm_long")
    pairs = [pair(name, f"{name} dog", category="animal") for name in names]
    transform = make(shares={"category": 0.5, "vlm_short": 0.2, "llm": 0.2, "vlm_long": 0.1})
    random.seed(0)
    drawn = Counter(transform(sample(*pairs))["text"] for _ in range(2000))
    expected = {"animal. ": 1000, "vlm_short dog. ": 400, "llm dog. ": 400, "vlm_long dog. ": 200}
    assert set(drawn) == set(expected)
    assert all(abs(drawn[text] - count) < 80 for text, count in expected.items())


@pytest.mark.parametrize(
    ("shares", "texts"),
    [
        ({"llm/multi": 1}, {"two dogs"}),
        ({"llm/multiple": 1}, {"two dogs"}),
        ({"llm/single": 1}, {"a dog"}),
        ({"llm": 1}, {"a dog", "two dogs"}),
        ({"vlm_short": 9, "llm/multi": 1}, {"two dogs"}),  # what the image has
        ({"vlm_short": 1}, {"a dog", "two dogs"}),  # any source that it has
    ],
)
def test_relations_are_explicit_and_absent_sources_fall_back(make, shares, texts):
    pairs = (pair("llm", "a dog"), pair("llm", "two dogs", boxes=2))
    assert set(expressions(make(shares=shares)(sample(*pairs)))) == texts


def test_an_image_without_expressions_is_described_by_its_classes(make):
    results = make(shares={"llm": 1})(sample(pair("llm", category="Dog", boxes=2), pair("llm")))
    assert said(results) == {0: {"dog"}, 1: {"dog"}}


def test_a_box_of_several_pairs_has_one_label_for_all_their_expressions(make):
    one, both = pair("llm", "the left dog"), pair("llm", "two dogs", boxes=2)
    left, right = [0, 0, 9, 9], [10, 0, 19, 9]
    results = make()(sample(one, both, boxes=[left, left, right]))
    assert said(results) == {0: {"the left dog", "two dogs"}, 1: {"two dogs"}}
    assert len(set(results["gt_bboxes_labels"].tolist())) == 2


def test_several_positive_expressions_of_a_pair(make):
    texts = ("a dog", "a pet", "an animal")
    results = make(num_positive=2)(sample(pair("llm", *texts)))
    assert len(said(results)[0]) == 2


def test_what_is_true_of_the_image_is_no_negative(make):
    pairs = (
        pair("llm", "a dog", negatives=["A cat.", "a bird", "Animal", "a bus"]),
        pair("llm", "a cat", category="animal"),
        pair("vlm_long", "a bird"),
    )
    for _ in range(5):
        results = make(shares={"llm": 1})(sample(*pairs))
        assert set(expressions(results)) == {"a dog", "a cat", "a bus"}


def test_an_expression_that_does_not_fit_is_passed_over_and_counted(make):
    long = " ".join(["dog"] * 30)
    transform = make(max_tokens=14)
    pairs = (pair("llm", "red dog"), pair("llm", long))
    results = transform(sample(*pairs))
    assert said(results) == {0: {"red dog"}}
    assert transform.dropped.counts[EXPRESSION_TOO_LONG] == 1
    negatives = [long, f"{long} red", "cat", "red cat"]
    for _ in range(10):
        results = transform(sample(pair("llm", "red dog", negatives=negatives)))
        assert set(expressions(results)) == {"red dog", "cat", "red cat"}
        assert len(results["tokenized"][0].ids) <= 14
    assert transform.dropped.counts[NEGATIVE_PASSED_OVER] == 20


def test_no_more_negatives_than_asked_for(make):
    negatives = [f"dog {number}" for number in range(20)]
    results = make(num_negative=3)(sample(pair("llm", "cat", negatives=negatives)))
    assert len(expressions(results)) == 4


def test_a_picture_whose_boxes_were_cropped_away_has_negatives_alone(make):
    one = pair("llm", "dog", negatives=["cat"])
    empty = sample(one) | {
        "gt_bboxes": HorizontalBoxes(torch.zeros(0, 4)),
        "gt_bboxes_labels": np.zeros(0, np.int64),
        "gt_ignore_flags": np.zeros(0, bool),
    }
    transform = make()
    results = transform(dict(empty))
    assert (results["text"], len(results["gt_bboxes"])) == ("cat. ", 0)
    assert transform(empty | {"expressions": (pair("llm", "dog"),)}) is None
    assert transform.dropped.counts == {NOTHING_TO_SAY: 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, {"the right dog", "a cat left of it"}), ({"mirror_words": False}, None)],
)
def test_left_and_right_change_places_in_a_flipped_picture(make, settings, expected):
    one = pair("llm", "The left dog", negatives=["a cat right of it"])
    unflipped = {"the left dog", "a cat right of it"}
    flipped = make(**settings)(sample(one, flip=True, flip_direction="horizontal"))
    assert set(expressions(flipped)) == (expected or unflipped)
    assert set(expressions(make()(sample(one, flip=False, flip_direction=None)))) == unflipped


def test_draws_follow_from_the_seed_of_the_sample(make):
    negatives = [f"dog {number}" for number in range(30)]
    transform = make(num_negative=4)
    texts = []
    for seed in (5, 6, 5):
        random.seed(seed)
        texts.append(transform(sample(pair("llm", "a", "b", "c", negatives=negatives)))["text"])
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": {"llm/some": 1}}, "'llm/some'; behind the source may stand /single or /multi"),
        ({"shares": {"llm": 0}}, r"shares\['llm'\] is 0; give a number above 0"),
        ({"num_positive": 0}, "num_positive=0"),
    ],
)
def test_settings_are_checked(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_rows_and_transforms_that_do_not_belong_together_are_named(make, bert_folder):
    with pytest.raises(DataError, match=r"a\.jpg.*SampleExpressions needs rows with the field"):
        make()({"img_path": "a.jpg"})
    with pytest.raises(DataError, match=r"a\.jpg.*sampled by the transform SampleExpressions"):
        RandomSamplingNegPos(bert_folder)(sample(pair("llm", "a dog")))
