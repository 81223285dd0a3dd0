"""The one joiner: from a :data:`Prompt` to texts and where in them each label is named.

Training, test, demo and export write their prompts here. Character spans are written down while
a text is put together, never searched for in it afterwards, so that equal names, names inside
names and regular-expression characters cannot move a label to another word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from llmdet.errors import DataError
from llmdet.prompts.noun_phrases import find_noun_phrases
from llmdet.prompts.parse import shorten
from llmdet.prompts.types import (
    Affixes,
    AnyObject,
    Classes,
    Expression,
    Expressions,
    Prompt,
    PromptText,
    Sentence,
    Span,
    Spans,
)

SEPARATOR = ". "
PhraseFinder = Callable[[str], list[Span]]
#: Tokens of each text, without special tokens.
CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are written.

    Attributes:
        max_classes: most class names in one text; -1: as many as the text encoder takes.
        noun_phrases: what finds them in a sentence: "auto", "nltk", "rules"
            (:func:`llmdet.prompts.noun_phrases.find_noun_phrases`), or a function.
        subject_only: of a referring expression, its first noun phrase alone is the entity, as the
            original program scores it; the other words still reach the text encoder.
    """

    max_classes: int = -1
    noun_phrases: str | PhraseFinder = "auto"
    subject_only: bool = False


def write_prompt(
    prompt: Prompt,
    count_tokens: CountTokens,
    room: int,
    options: PromptOptions = PromptOptions(),
) -> list[PromptText]:
    """The texts of a prompt: one, or for class names as many as they need.

    Class names fill chunks in order, each to the last whole name that fits.

    Args:
        prompt: what to look for.
        count_tokens: of the text encoder.
        room: most tokens of a text, without special tokens.
        options: see :class:`PromptOptions`.

    Raises:
        DataError: a class alone exceeds ``room``, or a sentence has no noun phrase.
    """
    match prompt:
        case Classes():
            return _write_chunks(prompt, count_tokens, room, options.max_classes)
        case Spans():
            return [_write_spans(prompt)]
        case Sentence():
            return [_write_sentence(prompt.text, options)]
        case Expression():
            return [_write_described(prompt.text, options)]
        case Expressions():
            written = [_write_described(text, options) for text in prompt.texts]
            return [replace(one, label_offset=label) for label, one in enumerate(written)]
        case AnyObject():
            return [_write_expression(prompt.word)]


def write_classes(classes: Classes, label_offset: int = 0) -> PromptText:
    """All class names in one text "cat. dog. "."""
    text = ""
    spans: list[tuple[Span, ...]] = []
    for affixes in _written(classes):
        if affixes is None:
            spans.append(())
            continue
        start = len(text) + len(affixes[0])
        spans.append(((start, start + len(affixes[1])),))
        text += _class_text(affixes)
    variants = (
        write_classes(Classes(classes.names, way), label_offset) for way in classes.variants
    )
    return PromptText(text, classes.names, tuple(spans), label_offset, tuple(variants))


def class_texts(classes: Classes) -> list[str]:
    """What each class adds to a prompt: its words and the separator, or nothing."""
    return list(map(_class_text, _written(classes)))


def expression_texts(prompt: Prompt | None) -> tuple[str, ...]:
    """The expressions of a prompt, each of which describes one label; () for other prompts."""
    match prompt:
        case Expression():
            return (prompt.text,)
        case Expressions():
            return prompt.texts
    return ()


def entity_names(prompt: Prompt | None) -> tuple[str, ...]:
    """What each label of a prompt is called; () where only a tagger can tell (a sentence)."""
    match prompt:
        case Classes():
            return prompt.names
        case Spans():
            return _write_spans(prompt).entities
        case Expression():
            return _write_expression(prompt.text).entities
        case Expressions():
            return tuple(_write_expression(text).entities[0] for text in prompt.texts)
        case AnyObject():
            return (prompt.word,)
    return ()


def prompt_summary(prompt: Prompt | None) -> str:
    """A prompt as people read it: its text, or its class names."""
    if prompt is None:
        return ""
    if isinstance(prompt, AnyObject):
        return prompt.word
    if isinstance(prompt, Expressions):
        return " / ".join(prompt.texts)
    return ". ".join(prompt.names) if isinstance(prompt, Classes) else prompt.text


def close_sentence(sentence: str) -> str:
    """The sentence with the dot that ends its last sub-sentence."""
    return sentence if sentence.rstrip().endswith(".") else sentence + SEPARATOR


def _written(classes: Classes) -> Sequence[Affixes | None]:
    """Prefix, name and suffix of each class, None for one that is not written."""
    return classes.written or [("", name, "") if name.strip() else None for name in classes.names]


def _class_text(affixes: Affixes | None) -> str:
    return "" if affixes is None else "".join(affixes) + SEPARATOR


def _write_chunks(
    classes: Classes, count_tokens: CountTokens, room: int, max_classes: int
) -> list[PromptText]:
    ways = [Classes(classes.names, way) for way in classes.variants]
    each = [count_tokens(class_texts(way)) for way in (classes, *ways)]
    counts = [max(of_class) for of_class in zip(*each, strict=True)]  # every way fits
    for name, count in zip(classes.names, counts, strict=True):
        if count > room:
            raise DataError(
                f"Class {shorten(name)!r} alone takes {count} tokens with its separator, a prompt "
                f"holds {room}: shorten its name or raise language_model.max_tokens."
            )
    return [
        write_classes(classes.select(range(start, stop)), start)
        for start, stop in _chunk_bounds(counts, room, max_classes)
    ]


def _chunk_bounds(counts: Sequence[int], room: int, max_classes: int) -> Iterator[Span]:
    """[start, stop) of chunks of at most ``room`` tokens and ``max_classes`` names."""
    most = max_classes if max_classes > 0 else len(counts)
    start, used = 0, 0
    for i, count in enumerate(counts):
        if i - start == most or used + count > room:
            yield start, i
            start, used = i, 0
        used += count
    yield start, len(counts)


def _write_spans(prompt: Spans) -> PromptText:
    text = close_sentence(prompt.text)
    names = (" / ".join(text[s:e].strip() for s, e in spans) for spans in prompt.spans)
    return PromptText(text, tuple(names), prompt.spans)


def _write_sentence(sentence: str, options: PromptOptions) -> PromptText:
    find = options.noun_phrases
    if isinstance(find, str):
        find = partial(find_noun_phrases, method=find)
    text = close_sentence(sentence)
    phrases = find(text)
    if not phrases:
        raise DataError(
            f"No noun phrase found in {shorten(sentence)!r}: for class names use "
            "--custom-entities, for a referring expression --tokens-positive -1."
        )
    return PromptText(
        text, tuple(text[s:e] for s, e in phrases), tuple(((s, e),) for s, e in phrases)
    )


def _write_described(expression: str, options: PromptOptions) -> PromptText:
    """An expression, of which all words are the entity, or its first noun phrase."""
    if not options.subject_only:
        return _write_expression(expression)
    phrases = _write_sentence(expression, options)
    return PromptText(phrases.text, phrases.entities[:1], phrases.spans[:1])


def _write_expression(expression: str) -> PromptText:
    text = close_sentence(expression)
    start = len(text) - len(text.lstrip())
    stop = len(text.rstrip(" ."))
    return PromptText(text, (text[start:stop],), (((start, stop),),))
