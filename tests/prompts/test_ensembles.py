"""Classes said in several ways."""

import pytest

from llmdet.errors import ConfigError
from llmdet.prompts import Classes, PromptOptions, ensemble, parse_prompt

PHOTO = "a photo of a {}."


def test_one_plain_way_changes_nothing():
    classes = Classes(("cat", "dog"))
    assert ensemble(classes) is classes
    assert ensemble(classes, ["{}"]) is classes


def test_every_name_and_synonym_stands_in_every_template(limited):
    classes = ensemble(
        Classes(("cat", "fire hydrant")), ["{}", PHOTO], {"fire_hydrant": ["hydrant"]}
    )
    (prompt,) = limited()(classes)
    assert prompt.text == "cat. fire hydrant. "
    assert [variant.text for variant in prompt.variants] == [
        "cat. fire hydrant. ",
        "a photo of a cat. a photo of a fire hydrant. ",
        "hydrant. ",
        "a photo of a hydrant. ",
    ]
    assert [variant.token_map.sum(1).tolist() for variant in prompt.variants] == [
        [1, len(limited().offsets("fire hydrant"))],
        [1, len(limited().offsets("fire hydrant"))],
        [0, len(limited().offsets("hydrant"))],
        [0, len(limited().offsets("hydrant"))],
    ]


def test_chunks_are_cut_so_that_every_way_fits(limited):
    names = ["cat", "dog", "kite"]
    (plain,) = limited(10)(parse_prompt(names))
    assert len(plain.ids) <= 10
    chunks = limited(14)(ensemble(parse_prompt(names), [PHOTO]))
    assert [chunk.entities for chunk in chunks] == [("cat", "dog"), ("kite",)]
    assert [chunk.variants[0].text for chunk in chunks] == [
        "a photo of a cat. a photo of a dog. ",
        "a photo of a kite. ",
    ]
    assert chunks[1].variants[0].label_offset == 2
    pairs = limited(64)(ensemble(parse_prompt(names), [PHOTO]), PromptOptions(1))
    assert [chunk.entities for chunk in pairs] == [("cat",), ("dog",), ("kite",)]


@pytest.mark.parametrize(
    ("templates", "synonyms", "sentence"),
    [
        (["a photo"], None, "has 0 places for the name"),
        (["{} {}"], None, "has 2 places"),
        (PHOTO, None, "templates is a list of texts"),
        (None, {"cta": ["kitten"]}, "no class that is looked for; .*'cat'"),
        (None, {"cat": "kitten"}, "is a list of texts"),
        (None, ["kitten"], "synonyms is a dict"),
    ],
)
def test_other_ways_are_refused(templates, synonyms, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ensemble(Classes(("cat", "dog")), templates, synonyms)
