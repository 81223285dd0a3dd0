"""Class names become a prompt with the right name at each label, within the token limit."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms.detection_text import (
    Vocabulary,
    choose_positives,
    clean_name,
    clean_name_upstream,
    draw_negatives,
    fit_negatives,
    join_names,
)
from llmdet.datasets.transforms.tokens import TokenCounter
from llmdet.errors import DataError


@pytest.mark.parametrize(
    ("name", "clean", "upstream"),
    [
        ("Fire_hydrant", "fire hydrant", "fire hydrant"),
        ("bow_(decorative_ribbons)", "bow", "bow "),
        ("hot   dog", "hot dog", "hot  dog"),
        ("(all)", "(all)", ""),
        (" T-Shirt ", "t-shirt", " t-shirt "),
    ],
)
def test_names_are_cleaned_and_never_empty(name, clean, upstream):
    assert clean_name(name) == clean
    assert clean_name_upstream(name) == upstream


def test_one_of_several_names_is_drawn_for_each_image_and_the_others_are_not_lost():
    vocabulary = Vocabulary({"0": "boots/shoes", "1": "dog", "2": "A/b / C", "3": "trash/"})
    draws = [vocabulary.draw() for _ in range(60)]
    assert {names[0] for names in draws} == {"boots", "shoes"}
    assert {names[1] for names in draws} == {"dog"}
    assert {names[2] for names in draws} == {"a", "b", "c"}
    assert {names[3] for names in draws} == {"trash"}


def test_label_maps_are_read_by_label_and_not_by_order():
    names = Vocabulary({"1": "dog", "0": "cat"}).draw()
    assert [names[0], names[1]] == ["cat", "dog"]
    with pytest.raises(DataError, match="has no label '1'"):
        Vocabulary({"0": "cat", "2": "dog"})


@given(
    st.sets(st.integers(0, 19), max_size=6),
    st.integers(0, 25),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_negatives_are_absent_classes_and_never_too_many(present, most, full_prob, seed):
    random.seed(seed)
    np.random.seed(seed)
    negatives = draw_negatives(present, 20, most, full_prob, upstream=False)
    assert not set(negatives) & present
    assert len(set(negatives)) == len(negatives) <= max(most, int(not present))
    assert negatives or present  # a prompt needs a word
    random.seed(seed)
    np.random.seed(seed)
    assert draw_negatives(present, 20, most, full_prob, upstream=False) == negatives


def test_all_or_a_uniform_number_of_negatives_are_drawn():
    always = [len(draw_negatives([], 20, 8, 1.0, upstream=False)) for _ in range(20)]
    assert set(always) == {8}
    numbers = [len(draw_negatives([], 20, 8, 0.0, upstream=False)) for _ in range(400)]
    assert set(numbers) == set(range(1, 9))


@given(
    st.lists(st.sampled_from(["dog", "red car", "x-ray", "traffic light", "zzz"]), min_size=1),
    st.sets(st.integers(0, 30)),
    st.integers(0, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_prompt_fits_and_says_the_name_of_each_label_at_its_span(tokenizer, classes, shown, limit):
    present = {label for label in shown if label < len(classes)}
    names = Vocabulary(classes).draw()
    count = TokenCounter(tokenizer)
    budget = limit - count.special_tokens
    kept, used = choose_positives(present, names, count, budget)
    absent = [label for label in range(len(classes)) if label not in present]
    negatives = fit_negatives(absent, names, count, budget - used)
    prompt = join_names(kept, negatives, names)
    assert set(kept) <= present
    assert len(tokenizer(prompt.text, add_special_tokens=False)["input_ids"]) <= max(budget, 0)
    assert set(prompt.positions) == set(kept)
    for label, position in prompt.positions.items():
        [[start, end]] = prompt.spans[position]
        assert prompt.text[start:end] == names[label] == prompt.text.split(". ")[position]


def test_negatives_do_not_take_the_place_of_a_class_that_did_not_fit(tokenizer):
    names = Vocabulary(["traffic light", "dog"]).draw()
    count = TokenCounter(tokenizer)
    kept, used = choose_positives([0], names, count, 2)
    assert kept == []
    assert fit_negatives([1], names, count, 2 - used) == []
