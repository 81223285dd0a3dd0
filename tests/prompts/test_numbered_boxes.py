"""Answers about boxes that stand numbered in a picture, however they are worded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.prompts.numbered_boxes import ask_for_numbers, read_numbers

WORDS = st.sampled_from(
    [
        "1",
        "3-5",
        "99",
        "none",
        "[",
        "]",
        ",",
        "box",
        "except",
        "<think>",
        "answer:",
        "0.9",
        "7%",
        "\n",
        "²",
    ]
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1, 3", [1, 3]),
        ("Boxes 5 and 2.", [5, 2]),
        ("```json\n[1, 2]\n```", [1, 2]),
        ("There are 2 of them: [1, 3]", [1, 3]),
        ("<think>box 4, maybe 2</think>The answer is 3.", [3]),
        ("1 looks alike, but no.\nFinal answer: 2", [2]),
        ("1-3", [1, 2, 3]),
        ("I am 90% sure (0.93): #4", [4]),
        ("<obj2>", [2]),
        ("No. 2", [2]),
        ("3, 3, 3", [3]),
        ("There are 2 people: 4 and 5", [4, 5]),
        ('{"boxes": [1, 2], "count": 3}', [1, 2]),
        ("1: yes\n3: yes, with 2 hats", [1, 3, 2]),
        ('{"1": "man", "3": "woman"}', [1, 3]),
        ("The answer is box 2. It is the answer because 3 is a dog.", [2]),
        ("Answer: 2. I am sure that this answer is right.", [2]),
        ("**Answer**: 2\nReason: box 3 is a dog", [2]),
        ("Answer:\n1. The man\n3. The woman", [1, 3]),
        ("1, 3\n\nExplanation: box 2 is a dog", [1, 3]),
        ("None of the boxes except 2", [2]),
        ("No box but 3.", [3]),
        ("0, 6, 12345", []),
        ("", []),
    ],
)
def test_numbers_are_read_from_any_wording(text, numbers):
    answer = read_numbers(text, 5)
    assert [index + 1 for index in answer.indices] == numbers


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "None of the boxes 1-3 shows it.",
        "None, but box 1 is similar.",
        "None except the dog.",
        "None: box 1 is a dog",
        "No.",
        "[]",
        "0",
        "Answer: none",
        "It is not there.",
        "There is no such thing in this image.",
    ],
)
def test_a_refusal_is_no_number(text):
    assert (read_numbers(text, 5).indices, read_numbers(text, 5).absent) == ((), True)


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join)), st.integers(0, 50))
def test_whatever_is_said_names_boxes_that_there_are_once_or_none(text, count):
    answer = read_numbers(text, count)
    assert len(set(answer.indices)) == len(answer.indices)
    assert all(0 <= index < count for index in answer.indices)
    assert not (answer.indices and answer.absent)
    assert answer.text == text


def test_the_question_says_how_many_boxes_there_are_and_what_is_looked_for():
    asked = ask_for_numbers("person with {count} hats", 7)
    assert "7 boxes" in asked
    assert "person with {count} hats" in asked
