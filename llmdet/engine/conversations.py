"""One place for what workers and model must agree on: the model's settings go to the pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KIND = "TokenizeConversations"


def share_conversation_settings(model: Any, dataloader: Any) -> None:
    """Give the model's settings to every ``TokenizeConversations`` that has none, in place.

    Args:
        model: perhaps with a method ``conversation_settings``.
        dataloader: config of a data loader that is not built yet; anything else is left alone.
    """
    make = getattr(model, "conversation_settings", None)
    settings = make() if make is not None else ()
    if settings:
        _fill(dataloader, settings)


def _fill(part: Any, settings: tuple[Any, ...]) -> None:
    if isinstance(part, Mapping):
        if str(part.get("type")).rpartition(".")[2] == KIND and part.get("settings") is None:
            part["settings"] = settings  # type: ignore[index]
            return
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            _fill(value, settings)
