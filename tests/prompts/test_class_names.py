"""Class names: splitting a prompt, cleaning names, refusing empty ones."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import DataError
from llmdet.prompts.class_names import (
    _warn,
    clean_class_name,
    clean_class_name_upstream,
    clean_class_names,
    split_class_names,
)


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
        ("St. Bernard . poodle", ["St. Bernard", "poodle"]),
        ("dr. martens boot. Mt. Fuji.", ["dr. martens boot", "Mt. Fuji"]),
        ("elm st. . cat", ["elm st", "cat"]),  # nothing that the dot could belong to
        ("dust. cat", ["dust", "cat"]),
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
        ("(all)", "all"),
        ("(a_(b).)", "a b"),
        ("( . )", ""),
    ],
)
def test_names_are_cleaned(name: str, clean: str) -> None:
    assert clean_class_name(name) == clean


def test_cleaning_equals_the_originals_but_for_blanks_and_dots_at_the_ends(
    golden_text: Callable[[str], Any],
) -> None:
    for name, original in golden_text("clean_label_name.json"):
        assert clean_class_name_upstream(name) == original
        if original.strip():  # of "(all)" the original leaves nothing
            assert clean_class_name(name) == " ".join(original.split()).strip(" .")


@given(st.text(max_size=20))
def test_cleaning_twice_changes_nothing(name: str) -> None:
    assert clean_class_name(clean_class_name(name)) == clean_class_name(name)


def test_equal_names_are_kept() -> None:
    assert clean_class_names(["bow_(weapon)", "bow_(ribbon)", "bow"]) == ("bow", "bow", "bow")


def test_no_name_is_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        clean_class_names([])


@pytest.mark.parametrize("name", ["", "  ", "( )", "_", "..."])
def test_a_name_without_words_keeps_its_label_and_is_announced(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    _warn.cache_clear()
    for _ in range(2):
        assert clean_class_names(["cat", name, "dog"]) == ("cat", "", "dog")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"Class 1, {name!r}, has no word"
    ]
    with pytest.raises(DataError, match="at least one"):
        clean_class_names([name])


def test_a_name_that_is_no_text_is_refused() -> None:
    names: list[Any] = ["cat", 7]
    with pytest.raises(DataError, match="Class 1 is 7"):
        clean_class_names(names)
