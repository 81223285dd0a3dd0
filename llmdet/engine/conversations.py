"""One place for what workers and model must agree on: the model's settings go to the pipelines."""

from __future__ import annotations

from typing import Any

from llmdet.utils.config import type_name, typed_parts

KIND = "TokenizeConversations"


def share_conversation_settings(model: Any, dataloader: Any) -> None:
    """Give the model's settings to every ``TokenizeConversations`` that has none, in place.

    Args:
        model: perhaps with a method ``conversation_settings``.
        dataloader: config of a data loader that is not built yet; anything else is left alone.
    """
    make = getattr(model, "conversation_settings", None)
    settings = make() if make is not None else ()
    for part in typed_parts(dataloader) if settings else ():
        if type_name(part) == KIND and part.get("settings") is None:
            part["settings"] = settings
