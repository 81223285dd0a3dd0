"""From names, sentences, spans and expressions to prompts."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import DataError
from llmdet.prompts import (
    Classes,
    Expression,
    Expressions,
    PromptOptions,
    PromptText,
    PromptTokenizer,
    Sentence,
    Spans,
    TokenizedPrompt,
    parse_prompt,
)
from llmdet.prompts.writing import entity_names, prompt_summary, write_prompt
from llmdet.testing.parity.pipeline import token_lists

Limited = Callable[..., PromptTokenizer]

SENTENCE = "A brown dog is running on the green grass next to a red ball."


def write(prompt: Any, **options: Any) -> PromptText:
    """The one text of a prompt that needs no tokenizer."""
    (written,) = write_prompt(prompt, lambda texts: [1] * len(texts), 256, PromptOptions(**options))
    return written


def named(prompt: PromptText) -> list[list[str]]:
    """What the spans of each entity cover."""
    return [[prompt.text[start:stop] for start, stop in spans] for spans in prompt.spans]


class TestClassNames:
    def test_names_are_joined_by_dots_and_remembered_by_position(self, limited: Limited) -> None:
        (prompt,) = limited(256)(parse_prompt(["cat", "fire_hydrant", "cap_(headwear)"]))
        assert prompt.text == "cat. fire hydrant. cap. "
        assert prompt.entities == ("cat", "fire hydrant", "cap")
        assert named(prompt) == [["cat"], ["fire hydrant"], ["cap"]]
        assert prompt.label_offset == 0

    @pytest.mark.parametrize("chunked", [False, True])
    def test_captions_entities_and_tokens_equal_the_originals(
        self,
        golden_text: Callable[[str], Any],
        limited: Limited,
        chunked: bool,
    ) -> None:
        compared = 0
        for record in golden_text("prompts.json"):
            size = record.get("chunked_size", -1)
            splits_characters = isinstance(record["input"], str) and size > 0
            if splits_characters or chunked != (size > 0) or not record["entities"]:
                continue
            prompt = parse_prompt(
                record["input"],
                custom_entities=True,
                caption_prompt=record.get("enhanced_text_prompt"),
                upstream_spacing=True,
            )
            prompts = limited()(prompt, PromptOptions(max_classes=size))
            assert record["caption_string"] == _as_recorded([p.text for p in prompts], chunked)
            assert record["entities"] == _as_recorded([list(p.entities) for p in prompts], chunked)
            tokens = [token_lists(prompt.token_map) for prompt in prompts]
            assert record["positive_map_label_to_token"] == _as_recorded(tokens, chunked)
            compared += 1
        assert compared >= 3

    def test_equal_names_and_names_inside_names_keep_their_own_places(
        self, limited: Limited
    ) -> None:
        (prompt,) = limited(256)(parse_prompt(["cat", "catfish", "a cat", "cat", "c.t", "("]))
        assert [text for (text,) in named(prompt)] == list(prompt.entities)
        tokens = {tuple(chosen) for chosen in token_lists(prompt.token_map).values()}
        assert len(tokens) == len(prompt.entities)

    @pytest.mark.parametrize("name", ["St. Bernard", "boots/shoes", "t-shirt", "naïve café", "狗"])
    def test_any_writing_of_a_name_is_one_entity(self, limited: Limited, name: str) -> None:
        (prompt,) = limited(256)(parse_prompt(["cat", name, "dog"]))
        assert prompt.entities == ("cat", name, "dog")
        assert prompt.token_map.any(axis=1).all()
        assert (prompt.token_map.sum(axis=0) <= 1).all()

    def test_a_text_of_names_is_split_before_it_is_chunked(self, limited: Limited) -> None:
        prompts = limited()(
            parse_prompt("cat . dog . kite", custom_entities=True), PromptOptions(2)
        )
        assert [prompt.entities for prompt in prompts] == [("cat", "dog"), ("kite",)]
        assert [prompt.label_offset for prompt in prompts] == [0, 2]

    @pytest.mark.parametrize("max_classes", [0, -1])
    def test_without_a_limit_of_classes_one_prompt_holds_what_fits(
        self, limited: Limited, max_classes: int
    ) -> None:
        assert len(limited(256)(parse_prompt(["cat"] * 127), PromptOptions(max_classes))) == 1
        assert len(limited(256)(parse_prompt(["cat"] * 128), PromptOptions(max_classes))) == 2

    def test_a_class_that_fits_no_prompt_is_named_with_its_length(self, limited: Limited) -> None:
        with pytest.raises(DataError, match=r"'dog dog dog dog' alone takes 5 tokens.*holds 4"):
            limited(6)(parse_prompt(["cat", "dog dog dog dog"]))

    def test_enhanced_names_are_written_as_told_and_reported_as_given(
        self, limited: Limited
    ) -> None:
        how = {
            "fire_hydrant": {"prefix": "red ", "name": "hydrant", "suffix": " on the street"},
            "dog": {"suffix": " with a tail"},
        }
        (prompt,) = limited(256)(parse_prompt(["cat", "fire_hydrant", "dog"], caption_prompt=how))
        assert prompt.text == "cat. red hydrant on the street. dog with a tail. "
        assert prompt.entities == ("cat", "fire hydrant", "dog")
        assert named(prompt) == [["cat"], ["hydrant"], ["dog"]]

    def test_an_enhanced_name_counts_with_all_its_tokens(self, limited: Limited) -> None:
        how = {"dog": {"prefix": "dog dog dog dog "}}
        with pytest.raises(DataError, match="alone takes 6 tokens"):
            limited(7)(parse_prompt(["dog"], caption_prompt=how))


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
    limited: Limited, names: list[str], max_tokens: int, max_classes: int
) -> None:
    prompts = limited(max_tokens)(Classes(tuple(names)), PromptOptions(max_classes))
    (whole,) = limited(10_000)(Classes(tuple(names)))
    assert [name for prompt in prompts for name in prompt.entities] == list(whole.entities)
    assert "".join(prompt.text for prompt in prompts) == whole.text
    offset = 0
    for prompt in prompts:
        assert prompt.label_offset == offset
        assert named(prompt) == [[name] for name in prompt.entities]
        assert len(prompt.ids) <= max_tokens
        assert max_classes < 0 or len(prompt.entities) <= max_classes
        offset += len(prompt.entities)
    for prompt, following in pairwise(prompts):
        more = f"{prompt.text}{following.entities[0]}. "
        full = limited(max_tokens).count([more])[0] > limited(max_tokens).room
        assert full or len(prompt.entities) == max_classes


class TestSpans:
    def test_each_list_of_spans_is_an_entity(self) -> None:
        spans = (((0, 11),), ((26, 41),), ((0, 1), (50, 60)), ())
        prompt = write(Spans(SENTENCE, spans))
        assert prompt.text == SENTENCE
        assert prompt.entities == ("A brown dog", "the green grass", "A / a red ball", "")
        assert prompt.spans == spans

    def test_a_sentence_is_closed_by_a_dot_once(self) -> None:
        assert write(Spans("a dog", (((2, 5),),))).text == "a dog. "
        assert write(Spans("a dog.", (((2, 5),),))).text == "a dog."
        assert write(Spans("a dog. ", (((2, 5),),))).text == "a dog. "

    def test_names_lose_the_blanks_of_their_spans(self) -> None:
        assert write(Spans("a dog", (((1, 5),),))).entities == ("dog",)


class TestSentence:
    def test_each_phrase_found_is_an_entity_also_when_it_occurs_twice(self) -> None:
        prompt = write(Sentence("a dog and a dog"), noun_phrases=lambda _: [(0, 5), (10, 15)])
        assert prompt.text == "a dog and a dog. "
        assert prompt.entities == ("a dog", "a dog")
        assert prompt.spans == (((0, 5),), ((10, 15),))

    def test_a_method_may_be_named(self) -> None:
        prompt = write(Sentence("There are many apples here."), noun_phrases="rules")
        assert prompt.entities == ("many apples",)

    def test_a_sentence_without_phrase_is_refused_with_the_other_ways_to_ask(self) -> None:
        with pytest.raises(DataError, match=r"--custom-entities.*--tokens-positive -1"):
            write(Sentence("Hm."), noun_phrases=lambda _: [])


class TestExpression:
    @pytest.mark.parametrize("text", ["red apple.", "red apple", "red apple. "])
    def test_the_whole_expression_is_the_entity(self, limited: Limited, text: str) -> None:
        (prompt,) = limited()(Expression(text))
        assert prompt.entities == ("red apple",)
        (tokens,) = prompt.token_map
        assert tokens[1:-2].all()
        assert not tokens[[0, -2, -1]].any()

    def test_several_have_a_text_and_a_label_each(self, limited: Limited) -> None:
        prompts = limited()(Expressions(("red apple.", "the left dog")))
        assert [prompt.entities for prompt in prompts] == [("red apple",), ("the left dog",)]
        assert [prompt.label_offset for prompt in prompts] == [0, 1]

    def test_its_subject_alone_may_be_the_entity(self) -> None:
        text = "the brown dog left of a tall tree"
        prompt = write(Expression(text), subject_only=True)
        assert prompt.text == f"{text}. "
        assert prompt.entities == ("the brown dog",)
        assert prompt.spans == (((0, 13),),)


def test_prompts_are_shown_and_their_labels_named_without_a_tokenizer() -> None:
    shown = {
        Classes(("cat", "dog")): ("cat. dog", ("cat", "dog")),
        Spans("a dog", (((2, 5),),)): ("a dog", ("dog",)),
        Expression("left dog"): ("left dog", ("left dog",)),
        Expressions(("left dog", "a cat.")): ("left dog / a cat.", ("left dog", "a cat")),
        Sentence("a dog"): ("a dog", ()),
        None: ("", ()),
    }
    for prompt, (summary, names) in shown.items():
        assert prompt_summary(prompt) == summary
        assert entity_names(prompt) == names


def test_an_equal_prompt_is_written_and_tokenised_once(limited: Limited) -> None:
    tokenizer = limited()
    first: tuple[TokenizedPrompt, ...] = tokenizer(parse_prompt(["cat", "dog"]))
    assert tokenizer(parse_prompt(("cat", "dog"))) is first
    assert tokenizer(parse_prompt(["cat", "dog"]), PromptOptions(max_classes=1)) is not first
    for number in range(100):
        tokenizer(Expression(f"dog {number}"))
    assert len(tokenizer._prompts) <= 64


def _as_recorded(chunks: list[Any], chunked: bool) -> Any:
    """The original answers with a list only when it chunks."""
    return chunks if chunked else chunks[0]
