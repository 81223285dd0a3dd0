"""The Hugging Face hub, asked once whether it is there: its clients try for a minute otherwise."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

_PATIENCE = 3.0  # seconds until a name that answers nobody counts as not reachable


def hub_options(name: str | Path) -> dict[str, Any]:
    """What a client of the hub is told about a model.

    Args:
        name: folder or hub id.

    Returns:
        ``local_files_only=True`` where the model can only be in the local cache, so that a missing
        one is noticed at once.
    """
    return {} if Path(name).is_dir() or hub_is_reachable() else {"local_files_only": True}


@cache
def hub_is_reachable() -> bool:
    """Whether the hub's address takes a connection, or a proxy is there to be asked."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(constants.ENDPOINT)
    if getproxies().get(address.scheme):
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_PATIENCE):
            return True
    except OSError:
        return False
