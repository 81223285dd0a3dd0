"""Class names: splitting a prompt, cleaning names, refusing empty ones."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import DataError
from llmdet.models.text.class_names import clean_class_name, prompt_names, split_class_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("apple .", ["apple"]),
        ("cat . dog", ["cat", "dog"]),
        ("cat. dog.", ["cat", "dog"]),
        ("cat . fire_hydrant. stop sign (road). ", ["cat", "fire_hydrant", "stop sign (road)"]),
        (" . cat..dog . ", ["cat..dog"]),
        ("a.b. c", ["a.b", "c"]),
        ("U.S.A flag . boots/shoes", ["U.S.A flag", "boots/shoes"]),
        ("cat ... dog", ["cat", "dog"]),
        ("apple .orange", ["apple", "orange"]),
        ("cat.\ndog.\n", ["cat", "dog"]),
        ("St. Bernard . poodle", ["St", "Bernard", "poodle"]),
        ("狗 . café", ["狗", "café"]),
        (". . .", []),
        ("", []),
    ],
)
def test_dots_next_to_blanks_separate_names(text: str, names: list[str]) -> None:
    assert split_class_names(text) == names


@given(st.lists(st.text("ab_-/(é狗", min_size=1, max_size=5), min_size=1, max_size=6))
def test_joined_names_come_apart_as_they_were(names: list[str]) -> None:
    for separator in (" . ", ". ", " ."):
        assert split_class_names(separator.join(names)) == names


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("cap_(headwear)", "cap"),
        ("fire_hydrant", "fire hydrant"),
        ("a  b   c", "a b c"),
        (" T-Shirt ", "T-Shirt"),
        ("boots/shoes", "boots/shoes"),
        ("St. Bernard", "St. Bernard"),
        ("a_(b_(c)_d)_e", "a e"),
        ("un(closed", "un(closed"),
        ("café_au_lait", "café au lait"),
        ("dog.", "dog"),
        ("(all)", ""),
    ],
)
def test_names_are_cleaned(name: str, clean: str) -> None:
    assert clean_class_name(name) == clean


def test_cleaning_equals_the_originals_but_for_blanks_and_dots_at_the_ends(
    golden_text: Callable[[str], Any],
) -> None:
    for name, original in golden_text("clean_label_name.json"):
        assert clean_class_name(name) == " ".join(original.split()).strip(" .")
        if original.strip() and name.strip():
            assert prompt_names([name], upstream_spacing=True) == [original]


@given(st.text(max_size=20))
def test_cleaning_twice_changes_nothing(name: str) -> None:
    assert clean_class_name(clean_class_name(name)) == clean_class_name(name)


def test_a_name_with_a_dot_stays_whole_in_a_list() -> None:
    assert prompt_names(["St. Bernard", "poodle"]) == ["St. Bernard", "poodle"]


def test_equal_names_are_kept() -> None:
    assert prompt_names(["bow_(weapon)", "bow_(ribbon)", "bow"]) == ["bow", "bow", "bow"]


@pytest.mark.parametrize("names", [[], "", " . . ", ()])
def test_no_name_is_refused(names: list[str] | str) -> None:
    with pytest.raises(DataError, match="at least one"):
        prompt_names(names)


@pytest.mark.parametrize("name", ["", "  ", "(all)", "_", "..."])
def test_a_name_without_words_is_refused_by_its_position(name: str) -> None:
    with pytest.raises(DataError, match="Class 1, "):
        prompt_names(["cat", name])


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="Class 1 is 7"):
        prompt_names(["cat", 7])
