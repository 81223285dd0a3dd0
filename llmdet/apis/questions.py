"""What to look for in an image: from the forms that users write to one checked question."""

from __future__ import annotations

import ast
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llmdet.apis.class_names import dataset_class_names
from llmdet.errors import ConfigError
from llmdet.prompts.ensembles import ensemble
from llmdet.prompts.hints import prompt_hints
from llmdet.prompts.parse import WHOLE_TEXT, parse_prompt
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import AnyObject, Classes, Expressions, Prompt, TokenizedPrompt
from llmdet.prompts.writing import PromptOptions

logger = logging.getLogger(__name__)

_DATASET_MARK = "$:"
_CLASSES_FORMS = "give class names as a list, or as one text 'cat . dog'"


@dataclass(frozen=True)
class Question:
    """What to look for in one image, and the texts that say so to the detector."""

    prompt: Prompt
    chunks: tuple[TokenizedPrompt, ...]  # as many as the class names need
    classes: tuple[str, ...]  # K names or phrases, in the order of labels
    negatives: int = 0  # how many of the last labels are not wanted

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names under which something may be reported."""
        return self.classes[: len(self.classes) - self.negatives]


@dataclass(frozen=True)
class Wording:
    """How class names are asked for.

    Attributes:
        negatives: names of look-alikes that are looked for too and not reported.
        templates: ways of saying a name, such as "a photo of a {}", whose features are averaged.
        synonyms: name -> other names, whose features are averaged with its own.
    """

    negatives: Sequence[str] = ()
    templates: Sequence[str] | None = None
    synonyms: Mapping[str, Sequence[str]] | None = None


def ask(
    prompt: Prompt,
    tokenizer: PromptTokenizer | None,
    options: PromptOptions,
    negatives: int = 0,
    learned: Container[str] = (),
) -> Question:
    """Tokenise a prompt; what a reader of it should know is logged once.

    Without tokenizer, the detector reads no words.

    Raises:
        ConfigError: words are put to a detector that reads none, or a granularity to one that does.
        DataError: as :class:`PromptTokenizer`.
    """
    if tokenizer is None:
        if not isinstance(prompt, AnyObject):
            raise ConfigError(
                "This detector proposes objects and reads no words: leave out what to look for."
            )
        return Question(prompt, (), (prompt.word,))
    if isinstance(prompt, AnyObject) and prompt.granularity is not None:
        raise ConfigError(
            f"granularity={prompt.granularity!r} is for detectors of proposals, such as those of "
            "configs/upn; this one reads words."
        )
    chunks = tokenizer(prompt, options)
    for hint in prompt_hints(prompt, chunks, tokenizer.tokenizer, learned):
        _say_once(hint)
    names = tuple(name for chunk in chunks for name in chunk.entities)
    return Question(prompt, chunks, names, negatives)


@lru_cache(maxsize=1024)  # sentences quote what visitors of the web demo write
def _say_once(hint: str) -> None:
    logger.warning(hint)


def read_question(
    classes: Sequence[str] | str | None = None,
    text: str | None = None,
    expression: str | Sequence[str] | None = None,
    spans: tuple[str, Any] | None = None,
    wording: Wording = Wording(),
    granularity: str | None = None,
) -> Prompt:
    """The prompt of a question in one of its forms; all are None: whatever is an object.

    Args:
        classes: names in a list, or in one text "cat . dog"; "$: lvis" stands for the classes of
            a data set.
        text: a sentence, whose noun phrases are looked for.
        expression: a text that describes one thing as a whole, or a list of such texts, each of
            which is looked for in a prompt of its own.
        spans: a text, and for each thing its [start, end) characters, or a list of such pieces.
        wording: how class names are asked for.
        granularity: of objects without a name.

    Raises:
        ConfigError: several forms are given, a text is empty, spans are no spans, or there is no
            such granularity.
        DataError: a class has no word, or a span lies outside its text.
    """
    given: dict[str, Any] = dict(classes=classes, text=text, expression=expression, spans=spans)
    given["granularity"] = granularity
    forms = [name for name, value in given.items() if value is not None]
    if len(forms) > 1:
        raise ConfigError(f"{' and '.join(forms)} exclude each other: give one of them.")
    if wording != Wording() and forms != ["classes"]:
        raise ConfigError("negatives, templates and synonyms belong to class names: give classes.")
    if classes is not None:
        return _read_classes(classes, wording)
    if text is not None:
        return parse_prompt(_filled(text, "text"))
    if isinstance(expression, str):
        return parse_prompt(_filled(expression, "expression"), tokens_positive=WHOLE_TEXT)
    if expression is not None:
        return _read_expressions(expression)
    if spans is None:
        return AnyObject(granularity=granularity)
    sentence, positions = _split_spans(spans)
    return parse_prompt(sentence, tokens_positive=normalize_spans(positions))


def words(text: str, class_names: bool = False) -> dict[str, Any]:
    """The argument of :func:`read_question` that a text is.

    Args:
        text: a sentence, "$: lvis" for the classes of a data set, or "cat . dog".
        class_names: it is a list of class names.
    """
    listed = class_names or text.strip().startswith(_DATASET_MARK)
    return {"classes" if listed else "text": text}


def as_prompt(entry: Any) -> Prompt:
    """The prompt of one image out of ``prompts``: as it is, class names, a sentence, or None.

    Raises:
        ConfigError, DataError: as :func:`read_question`.
    """
    if entry is None or not isinstance(entry, (str, list, tuple, set, dict)):
        return AnyObject() if entry is None else _known_prompt(entry)
    return read_question(**words(entry)) if isinstance(entry, str) else read_question(list(entry))


def _known_prompt(entry: Any) -> Prompt:
    if not isinstance(entry, Prompt):
        raise ConfigError(
            "prompts holds one entry for each image: a list of class names, a sentence, or one of "
            "llmdet.prompts (Classes, Sentence, Spans, Expression, Expressions), not "
            f"{type(entry).__name__}."
        )
    return entry


def _read_expressions(given: Sequence[str]) -> Expressions:
    if not isinstance(given, Iterable) or not (texts := tuple(given)):
        raise ConfigError(f"expression is {given!r}: give a text, or a list of texts.")
    for text in texts:
        parse_prompt(_filled(text, "expression"), tokens_positive=WHOLE_TEXT)
    return Expressions(texts)


def _read_classes(classes: Sequence[str] | str, wording: Wording) -> Classes:
    if isinstance(classes, str):
        names = class_names_of(classes)
    elif isinstance(classes, Classes):
        raise ConfigError("classes is a prompt already: hand it over in prompts.")
    elif isinstance(classes, Iterable):
        names = tuple(classes)
    else:
        raise ConfigError(f"classes is {classes!r}: {_CLASSES_FORMS}.")
    prompt = parse_prompt((*names, *_negatives(wording.negatives)))
    assert isinstance(prompt, Classes)
    return ensemble(prompt, wording.templates, wording.synonyms)


def _negatives(names: Sequence[str]) -> tuple[str, ...]:
    return class_names_of(names) if isinstance(names, str) else tuple(names)


def class_names_of(text: str) -> tuple[str, ...]:
    """The class names in a text "cat . dog", or of the data set that "$: lvis" names.

    Raises:
        ConfigError: the text is empty, or there is no such data set.
    """
    text = _filled(text, "classes").strip()
    if text.startswith(_DATASET_MARK):
        return dataset_class_names(text.removeprefix(_DATASET_MARK))
    prompt = parse_prompt(text, custom_entities=True)
    assert isinstance(prompt, Classes)
    return prompt.names


def _filled(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"{name} is a text, not a {type(text).__name__}.")
    if not text.strip():
        raise ConfigError(f"{name} is empty: say what to look for, such as 'cat . dog'.")
    return text


# Spans.

Span = list[int]
_SPAN_FORMS = (
    "write -1 for the whole text, or a list of character spans, one entry per entity: "
    "'[[0, 7], [12, 15]]' or, for an entity of several pieces, '[[[0, 3], [8, 11]], [[12, 15]]]'"
)


def _split_spans(spans: Any) -> tuple[str, Any]:
    pair = isinstance(spans, (tuple, list)) and len(spans) == 2 and isinstance(spans[0], str)
    if not pair:
        raise ConfigError(f"spans is a text and its positions, ('a cat', [[2, 5]]), not {spans!r}.")
    return _filled(spans[0], "the text of spans"), spans[1]


def normalize_spans(value: Any) -> int | list[list[Span]]:
    """Check spans and wrap plain ones, so that there is one list per entity; -1 stays.

    Raises:
        ConfigError: the value is neither -1 nor a list of spans.
    """
    if isinstance(value, int) and value == WHOLE_TEXT:
        return value
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        raise ConfigError(f"The spans are {value!r}: {_SPAN_FORMS}.")
    return [_entity_spans(entity, value) for entity in value]


def parse_spans(text: str) -> int | list[list[Span]]:
    """Read spans from the command line.

    Raises:
        ConfigError: as :func:`normalize_spans`, or the text is no number and no list.
    """
    try:
        return normalize_spans(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The spans are {text!r}: {_SPAN_FORMS}.") from error


def _entity_spans(entity: Any, value: Any) -> list[Span]:
    spans = [entity] if _is_span(entity) else entity
    if not isinstance(spans, (list, tuple)) or not spans or not all(map(_is_span, spans)):
        raise ConfigError(f"The spans are {value!r}: {_SPAN_FORMS}.")
    return [[int(start), int(end)] for start, end in spans]


def _is_span(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value)
    )
