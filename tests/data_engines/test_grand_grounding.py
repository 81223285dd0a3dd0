"""Which boxes are one object, which objects a phrase names, and what is read of any answer."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.data_engines.detections import Found
from llmdet.data_engines.grand.grounding import (
    Candidate,
    around,
    group,
    named_by_words,
    objects_at,
)
from llmdet.data_engines.grand.prompts import (
    accepted_affordances,
    accepted_landmark,
    accepted_relations,
    accepted_tags,
    layer_of,
    objects_of,
    place_of,
    short_caption,
)
from llmdet.data_engines.object_words import read_marked
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.datasets.masks import encode_mask

SIDE = st.integers(1, 12)
BOXES = st.tuples(st.integers(0, 8), st.integers(0, 8), SIDE, SIDE).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)


@given(st.lists(st.tuples(BOXES, st.integers(0, 2), st.floats(0, 1)), max_size=12), st.booleans())
def test_each_box_is_of_one_group_and_like_the_best_of_it(drawn, masked) -> None:
    candidates = []
    for number, (box, source, score) in enumerate(drawn):
        mask = np.zeros((24, 24), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        found = Found([float(side) for side in box], f"name {number}", score)
        candidates.append(Candidate(source, found, encode_mask(mask) if masked else None))
    groups = group(candidates)
    members = [one.found.phrase for each in groups for one in each.members]
    assert sorted(members) == sorted(one.found.phrase for one in candidates)
    for each in groups:
        scores = [one.found.score for one in each.members]
        assert scores == sorted(scores, reverse=True)
        assert list(each.scores().values()) == scores
        best = {"id": 0, "bbox": each.members[0].found.bbox}
        assert all(objects_at([one.found], [best], 0.65) for one in each.members)


def test_boxes_alike_with_masks_that_are_not_are_two_objects() -> None:
    whole, thin = np.ones((20, 20), bool), np.eye(20, dtype=bool)
    box = [0.0, 0.0, 20.0, 20.0]
    two = [Candidate(n, Found(box, "a", 0.5), encode_mask(m)) for n, m in enumerate((whole, thin))]
    assert len(group(two)) == 2
    assert len(group([Candidate(one.source, one.found) for one in two])) == 1


def item(number, label, attributes=(), score=0.5):
    return {
        "id": number,
        "labels": [label],
        "attributes": list(attributes),
        "score": [score],
        "bbox": [number, 0, number + 1, 1],
    }


OBJECTS = [
    item(0, "car", ["a red car with open doors"]),
    item(1, "car", ["a blue car"], 0.9),
    item(2, "traffic light"),
    item(3, "dog"),
]


@pytest.mark.parametrize(
    ("phrase", "ids"),
    [
        ("cars", [0, 1]),
        ("car", [1]),  # one of them: the best
        ("red car", [0]),
        ("blue car", [1]),
        ("Traffic Lights", [2]),
        ("big brown dog", [3]),
        ("dogs", [3]),
        ("light", [2]),
        ("cat", []),
        ("?!", []),
    ],
)
def test_a_phrase_names_the_objects_whose_words_it_has(phrase, ids) -> None:
    assert [one["id"] for one in named_by_words(phrase, OBJECTS)] == ids


def test_a_check_asks_for_more_than_the_noun() -> None:
    assert [one["id"] for one in named_by_words("green car", OBJECTS)] == [1]
    assert named_by_words("green car", OBJECTS, by_noun=False) == []
    assert [one["id"] for one in named_by_words("red car", OBJECTS, by_noun=False)] == [0]


def test_around_boxes_is_one_box() -> None:
    assert around([[1, 5, 3, 9], [0, 6, 2, 10]]) == (0, 5, 3, 10)
    assert objects_at([], OBJECTS, 0.5) == []


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["[a man](0)", "[it](1, 2)", "[x](7)", "[", "](", "indoor", ": ", "kitchen", ",", "\n",
             "- ", "1. ", "dog", "<obj1>"]
        ),
        st.text(max_size=6),
    ),
    max_size=15,
).map("".join)  # fmt: skip


@given(TEXTS, st.integers(0, 3), st.integers(1, 3))
def test_any_answer_is_read_or_rejected(text, objects, most) -> None:
    for read, least in ((accepted_relations, 2), (accepted_affordances, 1)):
        try:
            found = read(text, objects, most)
        except RejectedAnswerError:
            continue
        assert 0 < len(found) <= most
        for said in found:
            assert least <= len(objects_of(said)) <= objects
            assert not set(said.text) & set("[]<>")
            for (begin, end), indices in said.named:
                assert said.text[begin:end].strip() == said.text[begin:end] != ""
                assert max(indices) < objects
    with suppress(RejectedAnswerError):
        tags = accepted_tags(text, most)
        assert 0 < len(tags) <= most
        assert all(any(map(str.isalpha, tag)) for tag in tags)
    with suppress(RejectedAnswerError):
        assert all(accepted_landmark(text).values())
    read_marked(text, objects)


def test_answers_are_read() -> None:
    assert accepted_tags("- Red car,  dogs.\n3) a very long name of nothing, dogs", 9) == [
        "red car",
        "dogs",
    ]
    place = {"category": "outdoor", "fine_category": "city street"}
    assert accepted_landmark("**Outdoor**: City street.") == place
    with pytest.raises(RejectedAnswerError, match="no kind of place"):
        accepted_landmark("a kitchen")
    (one,) = accepted_relations("2) [A man](0) holds [cups](2, 1).\n[One](0) sits.", 3, 5)
    assert one.text == "A man holds cups."
    assert one.named == (((0, 5), (0,)), ((12, 16), (2, 1)))


def test_places_and_layers_have_names() -> None:
    assert place_of({"bbox": [0, 0, 10, 10]}, (90, 60)) == "at the top on the left"
    assert place_of({"bbox": [85, 55, 95, 70]}, (90, 60)) == "at the bottom on the right"
    assert place_of({"bbox": [40, 25, 50, 35]}, (90, 60)) == "in the middle"
    layers = [layer_of(depth) for depth in (0.0, 0.1, 0.6, 0.85, 1.0)]
    assert layers == [
        "immediate foreground",
        "foreground",
        "middle ground",
        "background",
        "background",
    ]
    assert short_caption(5) == short_caption(0) != short_caption(1)
