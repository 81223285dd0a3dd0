"""Class names become a prompt with the right name at each label, within the token limit."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms.detection_text import (
    Vocabulary,
    clean_name_upstream,
    draw_negatives,
    fit_labels,
)
from llmdet.errors import DataError
from llmdet.prompts import Classes


def test_upstreams_names_are_lower_cased_and_keep_their_blanks():
    assert clean_name_upstream("bow_(decorative_ribbons)") == "bow "
    assert clean_name_upstream(" T-Shirt ") == " t-shirt "
    assert clean_name_upstream("(all)") == ""


def test_one_of_several_names_is_drawn_for_each_image_and_the_others_are_not_lost():
    vocabulary = Vocabulary({"0": "boots/shoes", "1": "dog", "2": "A/b / C", "3": "trash/"})
    draws = [vocabulary.draw().names for _ in range(60)]
    assert {names[0] for names in draws} == {"boots", "shoes"}
    assert {names[1] for names in draws} == {"dog"}
    assert {names[2] for names in draws} == {"A", "b", "C"}
    assert {names[3] for names in draws} == {"trash"}


def test_label_maps_are_read_by_label_and_not_by_order():
    assert Vocabulary({"1": "dog", "0": "cat"}).draw() == Classes(("cat", "dog"))
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
    st.integers(2, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_leading_classes_that_fit_are_kept(limited, classes, shown, limit):
    tokenizer = limited(limit)
    labels = [label for label in sorted(shown) if label < len(classes)]
    kept, used = fit_labels(labels, Classes(tuple(classes)), tokenizer, tokenizer.room)
    assert kept == labels[: len(kept)]
    length = tokenizer.count(["".join(f"{classes[label]}. " for label in kept)])[0]
    assert length <= tokenizer.room
    assert (used > tokenizer.room) == (kept != labels)


def test_negatives_do_not_take_the_place_of_a_class_that_did_not_fit(limited):
    names = Classes(("traffic light", "dog"))
    kept, used = fit_labels([0], names, limited(4), 2)
    assert kept == []
    assert fit_labels([1], names, limited(4), 2 - used)[0] == []
