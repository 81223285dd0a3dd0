"""Noun phrases by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.prompts.phrase_rules import rule_noun_phrases


def phrases(sentence: str) -> list[str]:
    return [sentence[start:stop] for start, stop in rule_noun_phrases(sentence)]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("There are many apples here.", "many apples"),
        ("red apple.", "red apple"),
        ("traffic light", "traffic light"),
        (
            "A brown dog is running on the green grass next to a red ball.",
            "A brown dog|the green grass|a red ball",
        ),
        (
            "Two people are sitting on a wooden bench under a large tree, and a bicycle is parked "
            "nearby",
            "Two people|a wooden bench|a large tree|a bicycle",
        ),
        ("There's a cat and a remote in the picture", "a cat|a remote|the picture"),
        # determiners, numbers, adverbs inside
        ("all the bottles, some cups and no forks", "all the bottles|some cups|no forks"),
        ("3 cats and 2 dogs", "3 cats|2 dogs"),
        ("a man holds 2 balls at platform 9", "a man|2 balls|platform 9"),
        ("a 5.5 inch phone beside 2,000 coins.", "a 5.5 inch phone|2,000 coins"),
        ("a photo of a St. Bernard. A cat.", "a photo|a St. Bernard|A cat"),
        ("a very long potted plant", "a very long potted plant"),
        ("a brightly colored kite", "a brightly colored kite"),
        ("the red one and the other ones", "the red one|the other ones"),
        ("that dog and these two cats", "that dog|these two cats"),
        # possessives, hyphens, plurals, capitals, other scripts
        ("the man's hat", "the man's hat"),
        ("the man\u2019s hat", "the man\u2019s hat"),
        ("his hat and their umbrellas", "his hat|their umbrellas"),
        ("a man in a t-shirt", "a man|a t-shirt"),
        ("an ice-cream cone", "an ice-cream cone"),
        ("SUV by a Christmas tree", "SUV|a Christmas tree"),
        ("Caf\u00e9 terrace at night", "Caf\u00e9 terrace|night"),
        # lists and coordination
        ("apples, oranges and bananas", "apples|oranges|bananas"),
        ("a cat, a dog, and a bird", "a cat|a dog|a bird"),
        ("a big, brown bear", "a big, brown bear"),
        ("a black and white cat", "a black and white cat"),
        ('"big dog" (sign)', "big dog|sign"),
        # places and prepositions of several words
        ("the cup next to the plate", "the cup|the plate"),
        ("a man in front of a building", "a man|a building"),
        ("a laptop on top of a wooden desk", "a laptop|a wooden desk"),
        ("the red circle left of the blue square", "the red circle|the blue square"),
        ("a vase in the middle of the table", "a vase|the table"),
        ("the second person from the right", "the second person"),
        ("who is the man on the far left?", "the man"),
        ("the left dog", "the left dog"),
        # verbs
        ("A man holding a red ball", "A man|a red ball"),
        ("A man wearing sunglasses", "A man|sunglasses"),
        ("A man wears sunglasses and holds a surfboard.", "A man|sunglasses|a surfboard"),
        ("a cat sits on the mat", "a cat|the mat"),
        ("The girl eats the apple.", "The girl|the apple"),
        ("a parrot squawks at a sailor", "a parrot|a sailor"),
        ("people walk across the street with umbrellas", "people|the street|umbrellas"),
        ("a car parked nearby", "a car"),
        ("a dog jumping over a fence, chasing a ball", "a dog|a fence|a ball"),
        ("A woman slowly walks her dog.", "A woman|her dog"),
        ("He is wearing a blue shirt", "a blue shirt"),
        ("the dog that barks at the cat", "the dog|the cat"),
        ("The dogs are chasing cats.", "The dogs|cats"),
        ("He has seen it", ""),
        ("Find the dog", "the dog"),
        ("Show me all the bottles", "all the bottles"),
        ("I can see apples", "apples"),
        ("We want to eat the cake", "the cake"),
        # not verbs
        ("a dining table and a tall building", "a dining table|a tall building"),
        (
            "a king playing card by the city swimming pool",
            "a king playing card|the city swimming pool",
        ),
        ("a parked car", "a parked car"),
        ("There is running water in the sink", "running water|the sink"),
        ("The car has wheels.", "The car|wheels"),
        ("a bus, a wine glass and a camera lens", "a bus|a wine glass|a camera lens"),
        # predicates are no phrases
        ("The sky is blue and the ball is red.", "The sky|the ball"),
        ("The objects are apples", "The objects|apples"),
        # a colour's name that is a thing, too
        ("an orange on the table", "an orange|the table"),
        ("a blue circle above a red square", "a blue circle|a red square"),
        # nothing to find
        ("", ""),
        ("Is it here?", ""),
        ("...", ""),
        ("on the left", ""),
    ],
)
def test_phrases_of_a_sentence(sentence: str, expected: str) -> None:
    assert phrases(sentence) == (expected.split("|") if expected else [])


_vocabulary = (
    "a the two dog cats red sitting holds is are there and , . of next to left man's who that it "
    "very quickly 3 one black parked in front 's -"
)


@given(st.lists(st.sampled_from(_vocabulary.split()), max_size=12).map(" ".join))
def test_spans_are_in_order_apart_and_begin_and_end_on_words(sentence: str) -> None:
    end = 0
    for start, stop in rule_noun_phrases(sentence):
        assert end <= start < stop <= len(sentence)
        assert sentence[start].isalnum()
        assert sentence[stop - 1].isalnum()
        end = stop


@given(st.text(max_size=30))
def test_any_text_has_an_answer(sentence: str) -> None:
    for start, stop in rule_noun_phrases(sentence):
        assert 0 <= start < stop <= len(sentence)


@given(st.sampled_from(["a brown dog", "many apples", "the man's hat", "two black and white cats"]))
def test_a_phrase_alone_is_found_whole_in_any_capitalisation(phrase: str) -> None:
    for written in (phrase, phrase.upper(), f"{phrase.capitalize()}."):
        ((start, stop),) = rule_noun_phrases(written)
        assert written[start:stop] == written.rstrip(".")
