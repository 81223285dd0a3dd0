"""Build a part from its settings in a config, with an error that names the wrong key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from llmdet.errors import ConfigError
from llmdet.utils.suggest import did_you_mean

Part = TypeVar("Part")


def construct(
    cls: Callable[..., Part], settings: Mapping[str, Any], where: str, **extra: Any
) -> Part:
    """Return ``cls(**settings, **extra)``.

    Args:
        cls: class or function whose signature is the schema of ``settings``.
        settings: arguments as written in a config; ``extra`` ones are added by the caller.
        where: path of ``settings`` in the config, for the error.

    Raises:
        ConfigError: a key is unknown or a required one is missing; names the nearest match.
    """
    parameters = inspect.signature(cls).parameters
    check_keys(settings, parameters, where)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in settings and name not in extra
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}, which {cls.__name__} needs")
    return cls(**settings, **extra)


def settings_of(cls: type) -> list[str]:
    """All settings of a class of ours, each of which passes what it does not know to its parent."""
    names: dict[str, None] = {}
    for part in cls.__mro__:
        if part.__module__.startswith("llmdet.") and "__init__" in vars(part):
            parameters = inspect.signature(part).parameters
            named = [name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
            names |= dict.fromkeys(name for name in named if name != "self")
            if len(named) == len(parameters):
                break  # it takes nothing else
    return list(names)


def check_keys(settings: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse settings that do not exist.

    Raises:
        ConfigError: a key of ``settings``, which stand at ``where`` in the config, is not among
            the ``known``; names the nearest match.
    """
    names = list(known)
    for key in settings:
        if key not in names:
            raise ConfigError(f"{where} has the unknown key {key!r}; {did_you_mean(key, names)}")
