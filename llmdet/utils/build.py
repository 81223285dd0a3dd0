"""Mistakes in a config's parts, explained: unknown types and unknown or missing settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.registry import Registry
from mmengine.registry.build_functions import build_runner_from_cfg, build_scheduler_from_cfg

from llmdet.errors import ConfigError, LLMDetError
from llmdet.utils.suggest import did_you_mean

#: What mmengine takes out of a scheduler's settings before it builds one.
_OF_SCHEDULERS = ("convert_to_iter_based", "epoch_length")
#: What parts answer a value with that they cannot take.
_OF_VALUES = (AssertionError, TypeError, ValueError)


@contextmanager
def checked_builds() -> Iterator[None]:
    """Compare the settings of each part that a registry builds with the part's signature.

    Raises:
        ConfigError: a type is unknown, or a part was given a setting that it does not have or
            lacks one that it needs (names the nearest match), or a value that it cannot take.
    """
    build = Registry.build

    def checked(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        default = args[0] if args else kwargs.get("default_args")
        for settings in cfg if isinstance(cfg, list) else [cfg]:
            check_part(settings, self, default or {})
        try:
            return build(self, cfg, *args, **kwargs)
        except _OF_VALUES as error:
            if isinstance(error, LLMDetError) or self.build_func is build_runner_from_cfg:
                raise
            raise ConfigError(
                f"Config of {_type_of(cfg)}: its settings do not fit "
                f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
            ) from error

    Registry.build = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        Registry.build = build  # type: ignore[method-assign]


def check_part(settings: Any, registry: Registry, default: Mapping[str, Any] | None = None) -> None:
    """Raise a ConfigError if ``settings`` do not describe a part of ``registry``.

    Args:
        settings: as written in a config, with ``type``.
        registry: what the part is built by.
        default: settings that the builder adds where the config has none.
    """
    if not isinstance(settings, Mapping) or registry.build_func is build_runner_from_cfg:
        return
    given = {**(default or {}), **settings}
    scope = given.pop("_scope_", None)
    kind = given.pop("type", None)
    if kind is None:
        raise ConfigError(f"Config of a {registry.name} lacks its type: it has {', '.join(given)}")
    with registry.switch_scope_and_registry(scope) as chosen:
        part = find_type(chosen, kind)
        if part is None:
            hint = did_you_mean(
                str(kind), _known_types(chosen), otherwise="is the module that defines it imported?"
            )
            raise ConfigError(
                f"The config names type='{kind}', which is no {chosen.name} that we know; {hint}"
            )
    if registry.build_func is build_scheduler_from_cfg:
        given = {key: value for key, value in given.items() if key not in _OF_SCHEDULERS}
    wrong = _wrong_settings(part, given)
    if wrong:
        raise ConfigError(f"Config of {getattr(part, '__name__', part)}: {wrong}.")


def find_type(registry: Registry, kind: Any) -> Any:
    """What a config's ``type`` stands for, None where it stands for nothing."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        return registry.get(kind)
    except (RuntimeError, TypeError):  # no name at all, or that of no object of Python
        return None


def _type_of(cfg: Any) -> str:
    kinds = {str(part.get("type")) for part in (cfg if isinstance(cfg, list) else [cfg])}
    return " and ".join(sorted(kinds))


def _wrong_settings(part: Any, settings: Mapping[str, Any]) -> str:
    """What is wrong with the settings, empty where nothing is."""
    try:
        parameters, is_open = _parameters(part)
    except ValueError:  # a built-in whose signature nobody knows
        return ""
    unknown = [key for key in settings if key not in parameters]
    if unknown and not is_open:
        return f"it has no setting '{unknown[0]}'; {did_you_mean(unknown[0], parameters)}"
    missing = [
        name for name, p in parameters.items() if p.default is p.empty and name not in settings
    ]
    return f"it needs {', '.join(missing)}" if missing else ""


def _parameters(part: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """What a part may be given by name, and whether it takes any other name too.

    Classes of ours and mmengine's schedulers pass what they do not know to their parent.
    """
    parameters = dict(inspect.signature(part).parameters)
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {name: p for name, p in parameters.items() if p.kind in named}
    if is_open and _passes_on(part):
        for base in part.__mro__[1:]:
            if is_open and "__init__" in vars(base):
                inherited, is_open = _parameters(base)
                optional = {name: p.replace(default=None) for name, p in inherited.items()}
                parameters = {**optional, **parameters}
    return parameters, is_open


def _passes_on(part: Any) -> bool:
    if not inspect.isclass(part):
        return False
    return part.__module__.startswith("llmdet.") or issubclass(part, _ParamScheduler)


def _known_types(registry: Registry | None) -> list[str]:
    names: list[str] = []
    while registry is not None:
        names += registry.module_dict
        registry = registry.parent
    return names
