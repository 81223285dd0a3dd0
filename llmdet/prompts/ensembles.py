"""Several ways of saying each class: templates around its name, and other names for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmdet.errors import ConfigError
from llmdet.prompts.class_names import clean_class_name
from llmdet.prompts.types import Classes
from llmdet.utils.suggest import did_you_mean

PLAIN = "{}"


def ensemble(
    classes: Classes,
    templates: Sequence[str] | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> Classes:
    """The same classes with all variants of how to write them.

    Each class is written with its name and its synonyms in every template. The text encoder
    averages the features of these variants; what the prompt says, and the names of what is found,
    stay as they are.

    Args:
        classes: K names.
        templates: texts with "{}" in the place of the name, such as "a photo of a {}"; None: the
            name alone.
        synonyms: name -> other names.

    Raises:
        ConfigError: a template does not have exactly one "{}", or a synonym is for no class.
    """
    around = [_affixes(template) for template in _texts(templates or (PLAIN,), "templates")]
    others = _other_names(classes, synonyms or {})
    if around == [("", "")] and not others:
        return classes
    ways = [
        [
            (before, word, after)
            for word in (name, *others.get(name, ()))
            for before, after in around
            if word.strip()
        ]
        for name in classes.names
    ]
    most = max(map(len, ways))
    variants = tuple(
        tuple(of_class[row] if row < len(of_class) else None for of_class in ways)
        for row in range(most)
    )
    return replace(classes, variants=variants)


def _affixes(template: str) -> tuple[str, str]:
    if template.count(PLAIN) != 1:
        raise ConfigError(
            f"The template {template!r} has {template.count(PLAIN)} places for the name: write "
            "one {}, as in 'a photo of a {}'."
        )
    before, after = template.strip(" .").split(PLAIN)
    return before, after


def _other_names(
    classes: Classes, synonyms: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    if not isinstance(synonyms, Mapping):
        raise ConfigError("synonyms is a dict from class names to lists of other names.")
    found = {}
    for name, others in synonyms.items():
        clean = clean_class_name(str(name))
        if clean not in classes.names:
            raise ConfigError(
                f"synonyms has {name!r}, which is no class that is looked for; "
                f"{did_you_mean(clean, classes.names)}"
            )
        found[clean] = tuple(map(clean_class_name, _texts(others, f"synonyms[{name!r}]")))
    return found


def _texts(values: Sequence[str], name: str) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{name} is a list of texts, not {values!r}.")
    return list(values)
