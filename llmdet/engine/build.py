"""Mistakes in a config's parts, explained: unknown types and unknown or missing settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.registry import Registry, build_functions

from llmdet.errors import ConfigError
from llmdet.utils.suggest import did_you_mean


@contextmanager
def explained_build_errors() -> Iterator[None]:
    """Turn what a registry raises for a faulty config into one sentence.

    Only errors that the registry itself raises are turned; those from inside a part's code are
    defects and pass unchanged.

    Raises:
        ConfigError: a type is unknown, or a part was given a setting that it does not have or
            lacks one that it needs; names the nearest match.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        frame = _raising_frame(error)
        by_registry = frame.f_code is build_functions.build_from_cfg.__code__
        sentence = _sentence(error, frame.f_locals) if by_registry else ""
        if not sentence:
            raise
        raise ConfigError(sentence) from error


def _raising_frame(error: BaseException) -> FrameType:
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame


def _sentence(error: Exception, local: dict[str, Any]) -> str:
    """What is wrong with the settings; empty where they are not the reason."""
    part, kind, registry = local.get("obj_cls"), local.get("obj_type"), local["registry"]
    if part is not None:
        wrong = _wrong_settings(part, local["args"])
        return f"Config of {part.__name__}: {wrong}." if wrong else ""
    if isinstance(kind, str):
        hint = did_you_mean(
            kind, _known_types(registry), otherwise="is the module that defines it imported?"
        )
        return f"The config names type='{kind}', which is no {registry.name} that we know; {hint}"
    return f"Config: {error.args[0]}"


def _wrong_settings(part: Any, settings: dict[str, Any]) -> str:
    parameters = inspect.signature(part).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [key for key in settings if key not in parameters and not open_ended]
    if unknown:
        return f"it has no setting '{unknown[0]}'; {did_you_mean(unknown[0], parameters)}"
    named = (p for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    missing = [p.name for p in named if p.default is p.empty and p.name not in settings]
    return f"it needs {', '.join(missing)}" if missing else ""


def _known_types(registry: Registry | None) -> list[str]:
    names: list[str] = []
    while registry is not None:
        names += registry.module_dict
        registry = registry.parent
    return names
