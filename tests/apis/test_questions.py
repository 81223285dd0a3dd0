import logging
import re

import pytest

from llmdet.apis.questions import as_prompt, ask, parse_spans, read_question
from llmdet.apis.reading import parse_boxes
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError, DataError
from llmdet.prompts import (
    AnyObject,
    Classes,
    Expression,
    Expressions,
    PromptOptions,
    PromptTokenizer,
    Sentence,
    Spans,
    load_tokenizer,
)


@pytest.mark.parametrize(
    ("form", "prompt"),
    [
        ({"classes": ["cat", "dog"]}, Classes(("cat", "dog"))),
        ({"classes": "cat . dog"}, Classes(("cat", "dog"))),
        ({"classes": ("St. Bernard",)}, Classes(("St. Bernard",))),
        ({"text": "a dog."}, Sentence("a dog.")),
        ({"expression": "left dog"}, Expression("left dog")),
        ({"expression": ["left dog", "a cat"]}, Expressions(("left dog", "a cat"))),
        ({"spans": ("a dog", [[2, 5]])}, Spans("a dog", (((2, 5),),))),
        ({}, AnyObject()),
    ],
)
def test_every_form_of_a_question_becomes_a_prompt(form, prompt):
    assert read_question(**form) == prompt


@pytest.mark.parametrize(
    ("entry", "prompt"),
    [
        (["cat", "dog"], Classes(("cat", "dog"))),
        ("a dog.", Sentence("a dog.")),
        (Expression("left dog"), Expression("left dog")),
        (None, AnyObject()),
    ],
)
def test_each_image_may_have_a_prompt_of_its_own_kind(entry, prompt):
    assert as_prompt(entry) == prompt


@pytest.mark.parametrize("text", ["$: coco", "$:COCO", " $: mscoco "])
def test_a_data_set_stands_for_its_classes(text):
    assert read_question(text).names[:2] == ("person", "bicycle")
    assert len(as_prompt(text).names) == 80


@pytest.mark.parametrize("form", ["classes", "text", "expression"])
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(form, text):
    with pytest.raises(ConfigError, match=f"{form} is empty"):
        read_question(**{form: text})


@pytest.mark.parametrize(
    ("form", "error", "sentence"),
    [
        ({"classes": ["dog"], "text": "a dog"}, ConfigError, "classes and text exclude each other"),
        ({"classes": 3}, ConfigError, "class names as a list"),
        ({"classes": []}, DataError, "no class name"),
        ({"text": ["dog"]}, ConfigError, "text is a text, not a list"),
        ({"spans": "a dog"}, ConfigError, "spans is a text and its positions"),
        ({"spans": ("a dog", [])}, ConfigError, "list of character spans"),
        ({"spans": ("a dog", [[3, 9]])}, DataError, "no .* span of the 5 characters"),
    ],
)
def test_other_questions_are_refused(form, error, sentence):
    with pytest.raises(error, match=sentence):
        read_question(**form)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return PromptTokenizer(load_tokenizer(tiny_bert(tmp_path_factory.mktemp("bert"))), 64)


@pytest.mark.parametrize(
    ("form", "hint"),
    [
        ({"classes": ["red circle, white square"]}, "write 'red circle . white square'"),
        ({"classes": ["a dog \U0001f600"]}, "does not know '\U0001f600'"),
        ({"expression": "dog [SEP] tree"}, r"has '\[SEP\]' in it"),
    ],
)
def test_what_a_writer_may_not_have_meant_is_said_once(tokenizer, form, hint, caplog):
    with caplog.at_level(logging.WARNING, "llmdet"):
        for _ in range(2):
            ask(read_question(**form), tokenizer, PromptOptions())
    (record,) = caplog.records
    assert re.search(hint, record.getMessage())


def test_ordinary_prompts_have_no_hint(tokenizer, caplog):
    for form in ({"classes": ["dog, tree", "cat"]}, {"text": "A dog, and a tree."}):
        ask(read_question(**form), tokenizer, PromptOptions())
    assert not caplog.records


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("-1", -1),
        (" [[0, 3]] ", [[[0, 3]]]),
        ("[[0,3],[8,11]]", [[[0, 3]], [[8, 11]]]),
        ("[[[0,3],[8,11]],[[12,15]]]", [[[0, 3], [8, 11]], [[12, 15]]]),
        ("((0, 3), (4, 5))", [[[0, 3]], [[4, 5]]]),
    ],
)
def test_spans_are_read_from_the_command_line(written, expected):
    assert parse_spans(written) == expected


@pytest.mark.parametrize(
    "written", ["", "dog", "-2", "0", "[]", "[[0]]", "[0, 3]", "[[0, 'x']]", "[[]]", "[[0.5, 2]]"]
)
def test_other_spans_are_refused_with_the_forms_to_write(written):
    with pytest.raises(ConfigError, match=r"spans are .*write -1 .*\[\[0, 7\]"):
        parse_spans(written)


@pytest.mark.parametrize("text", ["[[NaN, 1, 2, 3]]", "[[1, 2, Infinity, 4]]", '[["a", 1, 2, 3]]'])
def test_boxes_that_are_no_numbers_are_refused(text):
    with pytest.raises(ConfigError, match="is no list of boxes"):
        parse_boxes(text)
