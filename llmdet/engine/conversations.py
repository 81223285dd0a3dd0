"""One place for what workers and model must agree on: the model's settings go to the pipelines."""

from __future__ import annotations

from typing import Any

from llmdet.utils.config import type_name, typed_parts

#: Transform -> method of a model that has its settings.
_METHODS = {"TokenizeConversations": "conversation_settings", "MakeViews": "view_settings"}


def share_settings(model: Any, dataloader: Any) -> None:
    """Give the model's settings to every transform that needs them and has none, in place.

    Args:
        model: perhaps with methods ``conversation_settings`` and ``view_settings``.
        dataloader: config of a data loader that is not built yet; anything else is left alone.
    """
    for kind, method in _METHODS.items():
        make = getattr(model, method, None)
        settings = make() if make is not None else None
        for part in typed_parts(dataloader) if settings else ():
            if type_name(part) == kind and part.get("settings") is None:
                part["settings"] = settings
