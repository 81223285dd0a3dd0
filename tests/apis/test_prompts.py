import pytest

from llmdet.apis.prompts import image_prompts, parse_boxes, parse_spans
from llmdet.errors import ConfigError
from llmdet.prompts import Classes, Expression, Sentence, Spans


def test_one_text_is_for_all_images():
    assert image_prompts("a dog.", 2) == [Sentence("a dog.")] * 2


def test_each_image_may_have_its_own_text_of_its_own_kind():
    texts = ["a dog.", ["cat", "dog"], Expression("left dog")]
    assert image_prompts(texts, 3) == [
        Sentence("a dog."),
        Classes(("cat", "dog")),
        Expression("left dog"),
    ]


def test_the_flags_belong_to_every_plain_text():
    assert image_prompts(["a", "b"], 2, custom_entities=True)[1] == Classes(("b",))
    (prompt,) = image_prompts("a dog", 1, tokens_positive=[[0, 5]])
    assert prompt == Spans("a dog", (((0, 5),),))
    assert image_prompts("left dog", 1, tokens_positive=-1) == [Expression("left dog")]


@pytest.mark.parametrize("text", ["$: coco", "$:COCO", " $: mscoco "])
def test_a_data_set_stands_for_its_classes(text):
    (prompt,) = image_prompts(text, 1)
    assert prompt.names[:2] == ("person", "bicycle")
    assert len(prompt.names) == 80


def test_another_number_of_texts_than_images_is_refused():
    with pytest.raises(ConfigError, match=r"2 entries for 1 images.*list in that list"):
        image_prompts(["cat", "dog"], 1)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(text):
    with pytest.raises(ConfigError, match="text is empty"):
        image_prompts(text, 1)


def test_classes_with_spans_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        image_prompts("a . b", 1, custom_entities=True, tokens_positive=-1)


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
    with pytest.raises(ConfigError, match=r"tokens_positive is .*write -1 .*\[\[0, 7\]"):
        parse_spans(written)


@pytest.mark.parametrize("text", ["[[NaN, 1, 2, 3]]", "[[1, 2, Infinity, 4]]", '[["a", 1, 2, 3]]'])
def test_boxes_that_are_no_numbers_are_refused(text):
    with pytest.raises(ConfigError, match="is no list of boxes"):
        parse_boxes(text)
