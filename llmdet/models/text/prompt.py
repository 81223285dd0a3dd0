"""The one way from class names, a sentence or spans to what the text encoder reads.

Training, test, demo and export all call :func:`build_prompts`. Character spans are written down
while the text is put together, never searched for in it afterwards, so that equal names, names
inside names and regular-expression characters cannot move a label to another word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase

from llmdet.errors import ConfigError, DataError
from llmdet.models.text.class_names import clean_class_name, prompt_names
from llmdet.models.text.noun_phrases import find_noun_phrases
from llmdet.models.text.token_map import Span, shorten, token_map

__all__ = [
    "Prompt",
    "build_prompts",
    "class_prompts",
    "referring_prompt",
    "sentence_prompt",
    "span_prompt",
    "token_map",
]

SEPARATOR = ". "
PhraseFinder = Callable[[str], list[Span]]
TokensPositive = Sequence[Sequence[Sequence[int]]] | Mapping[int, Sequence[Sequence[int]]]
Enhanced = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A text and where in it the things to be detected are named."""

    text: str  # exactly what the tokenizer gets
    entities: tuple[str, ...]  # K names or phrases, in the order of labels
    spans: tuple[tuple[Span, ...], ...]  # K lists of [start, end) character spans in text
    label_offset: int = 0  # label of entity 0 in the whole class list, for chunks


def build_prompts(
    text: str | Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    custom_entities: bool = False,
    tokens_positive: int | TokensPositive | None = None,
    enhanced: Enhanced | None = None,
    max_classes: int = -1,
    noun_phrases: str | PhraseFinder = "auto",
    subject_only: bool = False,
    upstream_spacing: bool = False,
) -> list[Prompt]:
    """Prompts for one image.

    ========================================  ====================================================
    given                                     prompts
    ========================================  ====================================================
    ``tokens_positive`` = -1                  one; the whole text is one referring expression
    ``tokens_positive`` = spans               one; an entity for each list of spans
    ``text`` a list, or ``custom_entities``   as many as the class names need (chunks)
    ``text`` a sentence                       one; an entity for each noun phrase found in it
    ========================================  ====================================================

    Args:
        text: class names, or a sentence.
        tokenizer: the text encoder's own.
        max_tokens: the text encoder's limit for a prompt.
        custom_entities: a str is a list of class names separated by dots, not a sentence.
        tokens_positive: None, -1, K lists of [start, end) spans, or (training) label -> spans.
        enhanced: class name -> dict(prefix, name, suffix), all optional: how to write that class
            (mmdet's ``caption_prompt``). For class names only.
        max_classes: most class names in one prompt; -1: as many as ``max_tokens`` allows.
        noun_phrases: how to find noun phrases: "auto", "nltk", "rules"
            (:func:`llmdet.models.text.noun_phrases.find_noun_phrases`), or a function of one's own.
        subject_only: of a referring expression, only the first noun phrase is the entity.
        upstream_spacing: keep the original program's blanks in names, for comparing with it.

    Raises:
        DataError: nothing to detect in ``text``, a class too long for one prompt, spans outside
            the text.
        ConfigError: ``enhanced`` has unknown fields, ``noun_phrases`` names no method.
    """
    finder = _phrase_finder(noun_phrases)
    if tokens_positive is not None:
        sentence = _one_sentence(text)
        if isinstance(tokens_positive, int):
            _check_whole_expression(tokens_positive)
            return [referring_prompt(sentence, subject_only=subject_only, noun_phrases=finder)]
        return [span_prompt(sentence, tokens_positive, upstream_spacing=upstream_spacing)]
    if custom_entities or not isinstance(text, str):
        return class_prompts(
            text,
            tokenizer,
            max_tokens,
            max_classes=max_classes,
            enhanced=enhanced,
            upstream_spacing=upstream_spacing,
        )
    return [sentence_prompt(text, finder)]


def class_prompts(
    names: Sequence[str] | str,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    *,
    max_classes: int = -1,
    enhanced: Enhanced | None = None,
    upstream_spacing: bool = False,
) -> list[Prompt]:
    """One prompt "cat. dog. " for all class names, or several where they do not fit.

    Chunks are filled in order, each to the last whole name that fits; every name keeps its
    position in the list as label, also where names are equal.

    Args: see :func:`build_prompts`.

    Raises:
        DataError: no names, an empty name, or one that alone exceeds ``max_tokens``.
    """
    cleaned = prompt_names(names, upstream_spacing)
    how = {clean_class_name(name): fields for name, fields in (enhanced or {}).items()}
    pieces = [_write_class(name, how.get(clean_class_name(name), {})) for name in cleaned]
    budget = max_tokens - tokenizer.num_special_tokens_to_add()
    counts = _token_counts(tuple(piece for piece, _ in pieces), tokenizer)
    for name, count in zip(cleaned, counts, strict=True):
        if count > budget:
            raise DataError(
                f"Class {shorten(name)!r} alone takes {count} tokens with its separator, a prompt "
                f"holds {budget} (max_tokens={max_tokens}): shorten its name or raise max_tokens."
            )
    return [
        _join_classes(cleaned[start:stop], pieces[start:stop], label_offset=start)
        for start, stop in _chunk_bounds(counts, budget, max_classes)
    ]


def sentence_prompt(sentence: str, noun_phrases: PhraseFinder) -> Prompt:
    """A sentence whose noun phrases are to be grounded.

    Raises:
        DataError: the sentence is empty or has no noun phrase.
    """
    text = _close(sentence)
    spans = noun_phrases(text)
    if not spans:
        raise DataError(
            f"No noun phrase found in {shorten(sentence)!r}: for class names use "
            "--custom-entities, for a referring expression --tokens-positive -1."
        )
    return Prompt(text, tuple(text[s:e] for s, e in spans), tuple(((s, e),) for s, e in spans))


def span_prompt(
    text: str, tokens_positive: TokensPositive, *, upstream_spacing: bool = False
) -> Prompt:
    """A text whose entities are given by character spans.

    Args:
        text: the sentence.
        tokens_positive: K lists of [start, end) spans, or label -> spans; labels that are absent
            from 0..max become entities without spans.
        upstream_spacing: entity names keep the blanks at the ends of their spans.

    Raises:
        DataError: no entity, an entity without span, or a span outside the text.
    """
    closed = _close(text)
    by_label = _spans_by_label(tokens_positive, text)
    spans = tuple(_checked_spans(entity, text) for entity in by_label)
    names = tuple(" / ".join(closed[s:e] for s, e in entity) for entity in spans)
    if not upstream_spacing:
        names = tuple(" / ".join(closed[s:e].strip() for s, e in entity) for entity in spans)
    return Prompt(closed, names, spans)


def referring_prompt(
    text: str, *, subject_only: bool = False, noun_phrases: PhraseFinder = find_noun_phrases
) -> Prompt:
    """A referring expression, one entity as a whole ("the dog left of the tree").

    Args:
        text: the expression.
        subject_only: the entity is the expression's first noun phrase ("the dog") alone, as the
            original program scores it; the other words still reach the text encoder.
        noun_phrases: finds it.

    Raises:
        DataError: the expression is empty, or ``subject_only`` and no noun phrase is in it.
    """
    if subject_only:
        phrases = sentence_prompt(text, noun_phrases)
        return Prompt(phrases.text, phrases.entities[:1], phrases.spans[:1])
    closed = _close(text)
    start = len(text) - len(text.lstrip())
    stop = len(closed.rstrip(" ."))
    return Prompt(closed, (closed[start:stop],), (((start, stop),),))


def _phrase_finder(noun_phrases: str | PhraseFinder) -> PhraseFinder:
    if isinstance(noun_phrases, str):
        return partial(find_noun_phrases, method=noun_phrases)
    return noun_phrases


def _one_sentence(text: str | Sequence[str]) -> str:
    if isinstance(text, str):
        return text
    raise DataError(
        f"tokens_positive points into one text, but the text is a list of {len(text)} class "
        "names: leave tokens_positive out."
    )


def _check_whole_expression(tokens_positive: int) -> None:
    if tokens_positive != -1:
        raise DataError(
            f"tokens_positive={tokens_positive}: give -1 for the whole expression, or a list of "
            "[start, end) character spans for each entity."
        )


def _close(sentence: str) -> str:
    """The sentence with the dot that ends its last sub-sentence."""
    if not sentence.strip(" ."):
        raise DataError(f"The prompt {sentence!r} is empty: say what to look for.")
    return sentence if sentence.rstrip().endswith(".") else sentence + SEPARATOR


def _write_class(name: str, how: Mapping[str, str]) -> tuple[str, Span]:
    """The text of one class with its separator, and the span of its name in it."""
    unknown = set(how) - {"prefix", "name", "suffix"}
    if unknown:
        raise ConfigError(
            f"Enhanced prompt of class {name!r}: unknown field {sorted(unknown)[0]!r}; the fields "
            "are prefix, name, suffix."
        )
    prefix, written = how.get("prefix", ""), how.get("name", name)
    text = prefix + written + how.get("suffix", "") + SEPARATOR
    return text, (len(prefix), len(prefix) + len(written))


@lru_cache(maxsize=64)
def _token_counts(pieces: tuple[str, ...], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    rows = tokenizer(list(pieces), add_special_tokens=False, verbose=False)["input_ids"]
    return [len(row) for row in rows]


def _chunk_bounds(counts: Sequence[int], budget: int, max_classes: int) -> Iterable[Span]:
    """[start, stop) of chunks of at most ``budget`` tokens and ``max_classes`` names."""
    most = max_classes if max_classes > 0 else len(counts)
    start, used = 0, 0
    for i, count in enumerate(counts):
        if i - start == most or used + count > budget:
            yield start, i
            start, used = i, 0
        used += count
    yield start, len(counts)


def _join_classes(
    names: Sequence[str], pieces: Sequence[tuple[str, Span]], label_offset: int
) -> Prompt:
    spans, length = [], 0
    for text, (start, stop) in pieces:
        spans.append(((length + start, length + stop),))
        length += len(text)
    return Prompt("".join(text for text, _ in pieces), tuple(names), tuple(spans), label_offset)


def _spans_by_label(tokens_positive: TokensPositive, text: str) -> list[Sequence[Sequence[int]]]:
    if isinstance(tokens_positive, Mapping):
        labelled = {int(label): spans for label, spans in tokens_positive.items()}
        if labelled and min(labelled) < 0:
            raise DataError(f"tokens_positive of {shorten(text)!r} has the label {min(labelled)}.")
        by_label = [labelled.get(label, ()) for label in range(max(labelled, default=-1) + 1)]
    else:
        labelled = dict(enumerate(tokens_positive))
        by_label = list(labelled.values())
    if not by_label:
        raise DataError(f"tokens_positive of {shorten(text)!r} is empty: give at least one entity.")
    for label, spans in labelled.items():
        if isinstance(spans, (int, str)) or not len(spans):
            raise DataError(
                f"tokens_positive of {shorten(text)!r}: entity {label} is {spans!r}, not a list of "
                "[start, end) spans."
            )
    return by_label


def _checked_spans(spans: Sequence[Sequence[int]], text: str) -> tuple[Span, ...]:
    for span in spans:
        if isinstance(span, int) or len(span) != 2 or not 0 <= span[0] < span[1] <= len(text):
            raise DataError(
                f"tokens_positive {span!r} is no [start, end) span of the {len(text)} characters "
                f"of {shorten(text)!r}."
            )
    return tuple((int(start), int(stop)) for start, stop in spans)
