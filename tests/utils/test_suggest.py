"""The end of a sentence about an unknown word."""

import pytest

from llmdet.utils.suggest import did_you_mean, misspelling_of


def test_a_near_word_is_named():
    assert did_you_mean("load_form", ["work_dir", "load_from"]) == "did you mean 'load_from'?"


def test_without_a_near_word_all_are_listed():
    assert did_you_mean("xyz", ["alpha", "beta"]) == "known: alpha, beta"


def test_of_many_words_the_first_are_listed_and_all_counted():
    answer = did_you_mean("?", [f"word{number}" for number in range(100)])
    assert answer.endswith("word29, ... (100 in all)")


def test_the_caller_may_answer_otherwise():
    assert did_you_mean("xyz", ["alpha"], otherwise="is it installed?") == "is it installed?"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("load_form", "load_from"),
        ("optim_wraper", "optim_wrapper"),
        ("modle", "model"),
        ("test_pipeline", None),
        ("mdl", None),
        ("load_from", None),
    ],
)
def test_a_slip_or_two_make_a_misspelling(word, meant):
    known = ["load_from", "optim_wrapper", "model", "tta_pipeline"]
    assert misspelling_of(word, known) == meant
