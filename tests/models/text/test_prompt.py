"""From names, sentences, spans and expressions to prompts."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from llmdet.errors import ConfigError, DataError
from llmdet.models.text.prompt import (
    Prompt,
    build_prompts,
    class_prompts,
    referring_prompt,
    sentence_prompt,
    span_prompt,
    token_map,
)

SENTENCE = "A brown dog is running on the green grass next to a red ball."


def named(prompt: Prompt) -> list[list[str]]:
    """What the spans of each entity cover."""
    return [[prompt.text[start:stop] for start, stop in spans] for spans in prompt.spans]


class TestClassNames:
    def test_names_are_joined_by_dots_and_remembered_by_position(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        (prompt,) = class_prompts(["cat", "fire_hydrant", "cap_(headwear)"], tokenizer, 256)
        assert prompt.text == "cat. fire hydrant. cap. "
        assert prompt.entities == ("cat", "fire hydrant", "cap")
        assert named(prompt) == [["cat"], ["fire hydrant"], ["cap"]]
        assert prompt.label_offset == 0

    @pytest.mark.parametrize("chunked", [False, True])
    def test_captions_entities_and_tokens_equal_the_originals(
        self,
        golden_text: Callable[[str], Any],
        tokenizer: PreTrainedTokenizerBase,
        chunked: bool,
    ) -> None:
        compared = 0
        for record in golden_text("prompts.json"):
            size = record.get("chunked_size", -1)
            splits_characters = isinstance(record["input"], str) and size > 0
            if splits_characters or chunked != (size > 0) or not record["entities"]:
                continue
            prompts = build_prompts(
                record["input"],
                custom_entities=True,
                enhanced=record.get("enhanced_text_prompt"),
                tokenizer=tokenizer,
                max_tokens=256,
                max_classes=size,
                upstream_spacing=True,
            )
            assert record["caption_string"] == _as_recorded([p.text for p in prompts], chunked)
            assert record["entities"] == _as_recorded([list(p.entities) for p in prompts], chunked)
            tokens = [
                {
                    str(k + 1): row.nonzero().flatten().tolist()
                    for k, row in enumerate(token_map([prompt], tokenizer, 256)[0])
                }
                for prompt in prompts
            ]
            assert record["positive_map_label_to_token"] == _as_recorded(tokens, chunked)
            compared += 1
        assert compared >= 3

    def test_equal_names_and_names_inside_names_keep_their_own_places(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        (prompt,) = class_prompts(["cat", "catfish", "a cat", "cat", "c.t", "("], tokenizer, 256)
        assert [text for (text,) in named(prompt)] == list(prompt.entities)
        tokens = [
            tuple(row.nonzero().flatten().tolist())
            for row in token_map([prompt], tokenizer, 256)[0]
        ]
        assert len(set(tokens)) == len(tokens)

    @pytest.mark.parametrize("name", ["St. Bernard", "boots/shoes", "t-shirt", "naïve café", "狗"])
    def test_any_writing_of_a_name_is_one_entity(
        self, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> None:
        (prompt,) = class_prompts(["cat", name, "dog"], tokenizer, 256)
        assert prompt.entities == ("cat", name, "dog")
        rows = token_map([prompt], tokenizer, 256)[0]
        assert rows.any(dim=1).all()
        assert (rows.sum(dim=0) <= 1).all()

    def test_a_text_of_names_is_split_before_it_is_chunked(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        prompts = class_prompts("cat . dog . kite", tokenizer, 256, max_classes=2)
        assert [prompt.entities for prompt in prompts] == [("cat", "dog"), ("kite",)]
        assert [prompt.label_offset for prompt in prompts] == [0, 2]

    @pytest.mark.parametrize("max_classes", [0, -1])
    def test_without_a_limit_of_classes_one_prompt_holds_what_fits(
        self, tokenizer: PreTrainedTokenizerBase, max_classes: int
    ) -> None:
        assert len(class_prompts(["cat"] * 127, tokenizer, 256, max_classes=max_classes)) == 1
        assert len(class_prompts(["cat"] * 128, tokenizer, 256, max_classes=max_classes)) == 2

    def test_a_class_that_fits_no_prompt_is_named_with_its_length(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        with pytest.raises(DataError, match=r"'dog dog dog dog' alone takes 5 tokens.*holds 4"):
            class_prompts(["cat", "dog dog dog dog"], tokenizer, 6)

    def test_enhanced_names_are_written_as_told_and_reported_as_given(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        how = {
            "fire_hydrant": {"prefix": "red ", "name": "hydrant", "suffix": " on the street"},
            "dog": {"suffix": " with a tail"},
        }
        (prompt,) = class_prompts(["cat", "fire_hydrant", "dog"], tokenizer, 256, enhanced=how)
        assert prompt.text == "cat. red hydrant on the street. dog with a tail. "
        assert prompt.entities == ("cat", "fire hydrant", "dog")
        assert named(prompt) == [["cat"], ["hydrant"], ["dog"]]

    def test_an_unknown_field_of_an_enhanced_name_is_refused(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        with pytest.raises(ConfigError, match="'sufix'"):
            class_prompts(["dog"], tokenizer, 256, enhanced={"dog": {"sufix": " x"}})

    def test_an_enhanced_name_counts_with_all_its_tokens(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        how = {"dog": {"prefix": "dog dog dog dog "}}
        with pytest.raises(DataError, match="alone takes 6 tokens"):
            class_prompts(["dog"], tokenizer, 7, enhanced=how)


_names = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="()_"),
    min_size=1,
    max_size=8,
).filter(lambda name: any(c.isalnum() for c in name))


@given(
    names=st.lists(_names, min_size=1, max_size=40),
    max_tokens=st.integers(24, 60),
    max_classes=st.sampled_from([-1, 1, 3, 40]),
)
@settings(max_examples=150, deadline=None)
def test_chunks_keep_every_class_whole_in_order_once_and_within_the_limit(
    tokenizer: PreTrainedTokenizerBase, names: list[str], max_tokens: int, max_classes: int
) -> None:
    prompts = class_prompts(names, tokenizer, max_tokens, max_classes=max_classes)
    (whole,) = class_prompts(names, tokenizer, 10_000)
    assert [name for prompt in prompts for name in prompt.entities] == list(whole.entities)
    assert "".join(prompt.text for prompt in prompts) == whole.text
    offset = 0
    for prompt in prompts:
        assert prompt.label_offset == offset
        assert named(prompt) == [[name] for name in prompt.entities]
        assert len(tokenizer(prompt.text)["input_ids"]) <= max_tokens
        assert max_classes < 0 or len(prompt.entities) <= max_classes
        offset += len(prompt.entities)
    for prompt, following in pairwise(prompts):
        more = f"{prompt.text}{following.entities[0]}. "
        full = len(tokenizer(more)["input_ids"]) > max_tokens
        assert full or len(prompt.entities) == max_classes


class TestSpans:
    def test_each_list_of_spans_is_an_entity(self) -> None:
        prompt = span_prompt(SENTENCE, [[[0, 11]], [[26, 41]], [[0, 1], [50, 60]]])
        assert prompt.text == SENTENCE
        assert prompt.entities == ("A brown dog", "the green grass", "A / a red ball")
        assert prompt.spans[2] == ((0, 1), (50, 60))

    def test_a_sentence_is_closed_by_a_dot_once(self) -> None:
        assert span_prompt("a dog", [[[2, 5]]]).text == "a dog. "
        assert span_prompt("a dog.", [[[2, 5]]]).text == "a dog."
        assert span_prompt("a dog. ", [[[2, 5]]]).text == "a dog. "

    def test_names_lose_the_blanks_of_their_spans_except_as_upstream_has_them(self) -> None:
        assert span_prompt("a dog", [[[1, 5]]]).entities == ("dog",)
        assert span_prompt("a dog", [[[1, 5]]], upstream_spacing=True).entities == (" dog",)

    def test_training_labels_may_have_holes_and_be_written_as_strings(self) -> None:
        prompt = span_prompt(SENTENCE, {"3": [[26, 41]], 1: [[0, 11]]})
        assert prompt.entities == ("", "A brown dog", "", "the green grass")
        assert prompt.spans[0] == ()

    @pytest.mark.parametrize(
        ("spans", "message"),
        [
            ([], "is empty"),
            ({}, "is empty"),
            ([[]], "entity 0"),
            ([[[0, 5]], []], "entity 1"),
            ({2: []}, "entity 2"),
            ({-1: [[0, 5]]}, "label -1"),
            ([[0, 5]], r"0 is no \[start, end\) span"),
            ([0, 5], "entity 0 is 0"),
            ([[[5, 5]]], r"\[5, 5\]"),
            ([[[-1, 5]]], r"\[-1, 5\]"),
            ([[[50, 62]]], r"\[50, 62\] is no .* of the 61 characters"),
            ([[[0, 3, 5]]], r"\[0, 3, 5\]"),
        ],
    )
    def test_spans_that_point_nowhere_are_refused(self, spans: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            span_prompt(SENTENCE, spans)


class TestSentence:
    def test_each_phrase_found_is_an_entity_also_when_it_occurs_twice(self) -> None:
        text = "a dog and a dog"
        prompt = sentence_prompt(text, lambda _: [(0, 5), (10, 15)])
        assert prompt.text == "a dog and a dog. "
        assert prompt.entities == ("a dog", "a dog")
        assert prompt.spans == (((0, 5),), ((10, 15),))

    def test_a_sentence_without_phrase_is_refused_with_the_other_ways_to_ask(self) -> None:
        with pytest.raises(DataError, match=r"--custom-entities.*--tokens-positive -1"):
            sentence_prompt("Hm.", lambda _: [])


class TestReferringExpression:
    @pytest.mark.parametrize("text", ["red apple.", "red apple", "red apple. "])
    def test_the_whole_expression_is_the_entity(
        self, tokenizer: PreTrainedTokenizerBase, text: str
    ) -> None:
        prompt = referring_prompt(text)
        assert prompt.entities == ("red apple",)
        tokens = token_map([prompt], tokenizer, 256)[0, 0]
        assert tokens[1:-2].all()
        assert not tokens[[0, -2, -1]].any()

    def test_its_subject_alone_may_be_the_entity(self) -> None:
        text = "the brown dog left of a tall tree"
        prompt = referring_prompt(text, subject_only=True)
        assert prompt.text == f"{text}. "
        assert prompt.entities == ("the brown dog",)
        assert prompt.spans == (((0, 13),),)


class TestDispatch:
    @pytest.mark.parametrize(
        ("text", "settings", "entities"),
        [
            ("apple .", {"custom_entities": True}, ("apple",)),
            (["apple", "pear"], {}, ("apple", "pear")),
            (("apple", "pear"), {}, ("apple", "pear")),
            ("There are many apples here.", {"noun_phrases": "rules"}, ("many apples",)),
            ("red apple.", {"tokens_positive": -1}, ("red apple",)),
            ("the dog by a tree", {"tokens_positive": -1, "subject_only": True}, ("the dog",)),
            ("red apple.", {"tokens_positive": [[[4, 9]]]}, ("apple",)),
            ("red apple.", {"tokens_positive": {0: [[4, 9]]}}, ("apple",)),
            ("any text", {"noun_phrases": lambda _: [(4, 8)]}, ("text",)),
        ],
    )
    def test_every_way_to_ask_has_its_prompt(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str | list[str],
        settings: dict[str, Any],
        entities: tuple[str, ...],
    ) -> None:
        (prompt,) = build_prompts(text, tokenizer=tokenizer, max_tokens=256, **settings)
        assert prompt.entities == entities

    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            ("", {}),
            (" . ", {"custom_entities": True}),
            ([], {}),
            ("  ", {"tokens_positive": -1}),
            (".", {"tokens_positive": [[[0, 1]]]}),
            ("a dog", {"tokens_positive": 1}),
            (["a", "dog"], {"tokens_positive": -1}),
        ],
    )
    def test_nothing_to_look_for_is_refused(
        self, tokenizer: PreTrainedTokenizerBase, text: str | list[str], settings: dict[str, Any]
    ) -> None:
        with pytest.raises(DataError):
            build_prompts(text, tokenizer=tokenizer, max_tokens=256, **settings)


def _as_recorded(chunks: list[Any], chunked: bool) -> Any:
    """The original answers with a list only when it chunks."""
    return chunks if chunked else chunks[0]
