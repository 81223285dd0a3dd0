import pytest

from llmdet.data_engines.caption_rules import (
    caption_fault,
    clean_caption,
    clean_phrase,
    phrase_fault,
    repeats_itself,
)

PLAIN = "A brown dog runs over green grass towards a red ball. Two trees stand behind it."


def fault_of(answer: str, min_words: int = 5) -> str | None:
    return caption_fault(answer, clean_caption(answer), min_words)


def test_a_plain_caption_is_taken_as_it_is() -> None:
    assert clean_caption(PLAIN) == PLAIN
    assert fault_of(PLAIN) is None


def test_speculation_is_dropped_before_words_are_counted() -> None:
    answer = f"{PLAIN} The scene suggests that it is probably a warm afternoon in summer."
    assert clean_caption(answer) == PLAIN
    words = len(PLAIN.split())
    assert fault_of(answer, words) is None
    assert fault_of(answer, words + 1) == "too short"


@pytest.mark.parametrize(
    "lead_in", ["Sure! ", "Sure, here is a description: ", "Here's the caption: ", "Certainly.\n"]
)
def test_what_the_model_says_before_the_caption_is_dropped(lead_in: str) -> None:
    assert clean_caption(lead_in + PLAIN) == PLAIN


def test_a_caption_that_begins_with_such_a_word_but_is_none_stays() -> None:
    caption = "Certain parts of the wall are white. Here and there lie stones."
    assert clean_caption(caption) == caption


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("I'm sorry, but I can't help with that picture of a dog.", "refused"),
        ("I am unable to see the image you have in mind, please send it.", "refused"),
        (f"{PLAIN} {PLAIN}", "repeats itself"),
        ("a dog and a cat and " * 20, "repeats itself"),
        ("A dog.", "too short"),
    ],
)
def test_faults_of_captions(answer: str, fault: str) -> None:
    assert fault_of(answer) == fault


def test_ordinary_parallel_sentences_are_no_repetition() -> None:
    assert not repeats_itself(
        "A man in a red shirt stands on the left. A man in a blue shirt stands on the right. "
        "A man in a green shirt stands in the middle of the picture."
    )


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ('"A red wooden chair."', "A red wooden chair"),
        ("a dog\n  on grass ", "a dog on grass"),
        ("Sure: a dog", "a dog"),
        ("**a dog**", "a dog"),
    ],
)
def test_phrases_become_bare_words(answer: str, phrase: str) -> None:
    assert clean_phrase(answer) == phrase
    assert phrase_fault(answer, phrase) is None


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("...", "empty"),
        ("I cannot tell", "refused"),
        ("word " * 16, "too long"),
        ("a man, possibly a waiter", "speculates"),
    ],
)
def test_faults_of_phrases(answer: str, fault: str) -> None:
    assert phrase_fault(answer, clean_phrase(answer)) == fault
