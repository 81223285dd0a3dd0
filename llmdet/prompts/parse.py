"""The door: from what users, configs and mmdet's schema write to a :data:`Prompt`.

The schema says what a text means with three further fields, of which ``tokens_positive`` is None,
-1 or spans; behind this module there are four types instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdet.errors import ConfigError, DataError
from llmdet.prompts.class_names import (
    clean_class_name,
    clean_class_name_upstream,
    clean_class_names,
    split_class_names,
    split_class_names_upstream,
)
from llmdet.prompts.types import Classes, Expression, Prompt, Sentence, Span, Spans

#: Value of ``tokens_positive`` that makes the whole text one referring expression.
WHOLE_TEXT = -1

TokensPositive = Sequence[Sequence[Sequence[int]]] | Mapping[int, Sequence[Sequence[int]]]
#: Class name -> dict(prefix, name, suffix), all optional.
CaptionPrompt = Mapping[str, Mapping[str, str]]


def parse_prompt(
    text: str | Sequence[str] | Mapping[str, str],
    *,
    custom_entities: bool = False,
    tokens_positive: int | TokensPositive | None = None,
    caption_prompt: CaptionPrompt | None = None,
    upstream_spacing: bool = False,
) -> Prompt:
    """The prompt that mmdet's fields describe.

    ========================================  ====================================
    given                                     prompt
    ========================================  ====================================
    ``tokens_positive`` = -1                  :class:`Expression`
    ``tokens_positive`` = spans               :class:`Spans`
    ``text`` of names, or ``custom_entities`` :class:`Classes`
    ``text`` a sentence                       :class:`Sentence`
    ========================================  ====================================

    Args:
        text: a sentence, class names, or a label map {"0": name, ...}.
        custom_entities: a str is a list of class names separated by dots, not a sentence.
        tokens_positive: None, -1, K lists of [start, end) spans, or (training) label -> spans,
            which may be empty: nothing that the text names is in the image.
        caption_prompt: how to write some classes; the keys are cleaned as the names are.
        upstream_spacing: split and clean names as the original LLMDet does, which keeps blanks
            in front of a removed parenthesis or separator. Only for comparing with it.

    Raises:
        DataError: nothing to look for in the text, or spans that point nowhere in it.
        ConfigError: ``caption_prompt`` has unknown fields.
    """
    if tokens_positive is not None:
        return _parse_spans(text, tokens_positive)
    if custom_entities or not isinstance(text, str):
        return _parse_classes(text, caption_prompt or {}, upstream_spacing)
    _check_not_empty(text)
    return Sentence(text)


def in_label_order(label_map: Mapping[str, str]) -> list[str]:
    """The names of a label map {"0": name, ...}.

    Raises:
        DataError: labels have holes.
    """
    named = {str(label): name for label, name in label_map.items()}
    try:
        return [named[str(label)] for label in range(len(named))]
    except KeyError as error:
        raise DataError(
            f"the label map of {len(named)} classes has no label {error}; its labels must be "
            f'"0" to "{len(named) - 1}".'
        ) from None


def shorten(text: str, width: int = 80) -> str:
    """The text as an error message quotes it."""
    return text if len(text) <= width else f"{text[:width]}..."


def _parse_classes(
    text: str | Sequence[str] | Mapping[str, str], caption_prompt: CaptionPrompt, upstream: bool
) -> Classes:
    if isinstance(text, Mapping):
        given = in_label_order(text)
    elif isinstance(text, str):
        given = split_class_names_upstream(text) if upstream else split_class_names(text)
    else:
        given = list(text)
    clean = clean_class_name_upstream if upstream else clean_class_name
    names = clean_class_names(given, clean)
    how = {clean_class_name(name): fields for name, fields in caption_prompt.items()}
    if not how and not upstream:
        return Classes(names)
    written = (
        _affixes(name, how.get(clean_class_name(name), {})) if upstream or name else None
        for name in names
    )
    return Classes(names, tuple(written))


def _affixes(name: str, how: Mapping[str, str]) -> tuple[str, str, str]:
    unknown = set(how) - {"prefix", "name", "suffix"}
    if unknown:
        raise ConfigError(
            f"caption_prompt of class {name!r}: unknown field {sorted(unknown)[0]!r}; the fields "
            "are prefix, name, suffix."
        )
    return how.get("prefix", ""), how.get("name", name), how.get("suffix", "")


def _parse_spans(
    text: str | Sequence[str] | Mapping[str, str], tokens_positive: int | TokensPositive
) -> Expression | Spans:
    if not isinstance(text, str):
        raise DataError(
            f"tokens_positive points into one text, but the text is a list of {len(text)} class "
            "names: leave tokens_positive out."
        )
    _check_not_empty(text)
    if not isinstance(tokens_positive, int):
        by_label = _spans_by_label(tokens_positive, text)
        return Spans(text, tuple(_checked_spans(spans, text) for spans in by_label))
    if tokens_positive != WHOLE_TEXT:
        raise DataError(
            f"tokens_positive={tokens_positive}: give -1 for the whole expression, or a list of "
            "[start, end) character spans for each entity."
        )
    return Expression(text)


def _check_not_empty(text: str) -> None:
    if not text.strip(" ."):
        raise DataError(f"The prompt {text!r} is empty: say what to look for.")


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
            raise DataError(
                f"tokens_positive of {shorten(text)!r} is empty: give at least one entity."
            )
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
