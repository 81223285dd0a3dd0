"""Class names as users and annotation files write them, made ready for a prompt."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

from llmdet.errors import DataError
from llmdet.prompts.closed_words import ABBREVIATIONS

logger = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"(?<!\S)\.+|\.+(?!\S)")
_ABBREVIATION = re.compile(rf"\b(?:{'|'.join(sorted(ABBREVIATIONS))})\.(?=\s+\w)", re.IGNORECASE)
_PARENTHESISED = re.compile(r"\(.*\)", re.DOTALL)


def split_class_names(text: str) -> list[str]:
    """Split a prompt such as ``"cat . dog. stop sign"`` into its class names.

    A run of dots separates where a blank or an end of the text is on at least one side of it;
    dots inside a word belong to the name ("a.b. c" is "a.b" and "c"), and so does the dot of an
    abbreviation in front of another word ("St. Bernard"). Other names in which a dot is followed
    by a blank can only be given in a list.
    """
    kept = {abbreviation.end() - 1 for abbreviation in _ABBREVIATION.finditer(text)}
    dots = [dot.span() for dot in _SEPARATOR.finditer(text) if dot.start() not in kept]
    starts, stops = [0, *(stop for _, stop in dots)], [*(start for start, _ in dots), len(text)]
    names = (text[start:stop].strip() for start, stop in zip(starts, stops, strict=True))
    return [name for name in names if name]


def split_class_names_upstream(text: str) -> list[str]:
    """Split as the original LLMDet does: "cat . dog" is "cat " and "dog"."""
    return [name for name in text.strip(". ").split(". ") if name]


@lru_cache(maxsize=65_536)
def clean_class_name(name: str) -> str:
    """The words of a class name: ``"cap_(headwear)"`` is "cap", ``"fire_hydrant"`` "fire hydrant".

    The part from the first to the last parenthesis is dropped, unless nothing else is there: then
    what the parentheses hold is the name. Underscores are blanks, runs of blanks become one,
    and blanks and dots at the ends go. Capitals stay: lower-casing is the tokenizer's.
    """
    return _words(_PARENTHESISED.sub("", name)) or _words(re.sub(r"[()]", " ", name))


@lru_cache(maxsize=65_536)
def class_key(name: str) -> str:
    """What is equal for spellings of one class name: the cleaned name in lower case."""
    return clean_class_name(name).casefold()


def clean_class_name_upstream(name: str) -> str:
    """Clean as the original LLMDet does, which leaves blanks ("bow ")."""
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ")


def clean_class_names(
    names: Iterable[str], clean: Callable[[str], str] = clean_class_name
) -> tuple[str, ...]:
    """Cleaned class names, in order, one for each that was given; equal names are kept.

    Raises:
        DataError: there is no name, or none has a word.
    """
    cleaned = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise DataError(f"Class {index} is {name!r}, not a name: give strings.")
        cleaned.append(clean(name))
        if not cleaned[-1].strip():
            _warn(index, name)
    if not any(name.strip() for name in cleaned):
        raise DataError(
            "There is no class name in the prompt: give at least one, several as "
            "'cat . dog . stop sign' or as a list."
        )
    return tuple(cleaned)


@cache
def _warn(index: int, name: str) -> None:
    """Say once which class is there in name only."""
    logger.warning("Class %d, %r, has no word: nothing is found under its label.", index, name)


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).strip(" .")
