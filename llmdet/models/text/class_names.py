"""Class names as users and annotation files write them, made ready for a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmdet.errors import DataError

_SEPARATOR = re.compile(r"(?<!\S)\.+|\.+(?!\S)")
_PARENTHESISED = re.compile(r"\(.*\)", re.DOTALL)


def split_class_names(text: str) -> list[str]:
    """Split a prompt such as ``"cat . dog. stop sign"`` into its class names.

    A run of dots separates where a blank or an end of the text is on at least one side of it;
    dots inside a word belong to the name ("a.b. c" is "a.b" and "c"). A name in which a dot is
    followed by a blank ("St. Bernard") can therefore only be given in a list.
    """
    names = (name.strip() for name in _SEPARATOR.split(text))
    return [name for name in names if name]


def clean_class_name(name: str) -> str:
    """The words of a class name: ``"cap_(headwear)"`` is "cap", ``"fire_hydrant"`` "fire hydrant".

    The part from the first to the last parenthesis is dropped, underscores are blanks, runs of
    blanks become one, and blanks and dots at the ends go.
    """
    words = _PARENTHESISED.sub("", name).replace("_", " ").split()
    return " ".join(words).strip(" .")


def prompt_names(names: Sequence[str] | str, upstream_spacing: bool = False) -> list[str]:
    """Cleaned class names, in order, one for each that was given; equal names are kept.

    Args:
        names: a list, or a text for :func:`split_class_names`.
        upstream_spacing: clean as the original LLMDet does, whose names keep the blanks in front
            of a removed parenthesis or separator ("cat . dog" is "cat " and "dog"). Only for
            comparing prompts with it.

    Raises:
        DataError: there is no name, or one has no word left.
    """
    given = _split(names, upstream_spacing) if isinstance(names, str) else list(names)
    if not given:
        raise DataError(
            f"No class name in the prompt {names!r}: give at least one, several as "
            "'cat . dog . stop sign' or as a list."
        )
    clean = _clean_keeping_blanks if upstream_spacing else clean_class_name
    cleaned = []
    for index, name in enumerate(given):
        if not isinstance(name, str):
            raise DataError(f"Class {index} is {name!r}, not a name: give strings.")
        cleaned.append(clean(name))
        if not cleaned[-1].strip():
            raise DataError(
                f"Class {index}, {name!r}, has no word outside parentheses: give it a name."
            )
    return cleaned


def _split(text: str, upstream_spacing: bool) -> list[str]:
    if not upstream_spacing:
        return split_class_names(text)
    return [name for name in text.strip(". ").split(". ") if name]


def _clean_keeping_blanks(name: str) -> str:
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ")
