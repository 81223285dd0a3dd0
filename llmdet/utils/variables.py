"""Let a variable of a config be changed from the command line with all that was built from it."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config


def change_variable(config: Config, name: str, value: Any) -> None:
    """Set a top-level text of a config and everything in the config that repeats it.

    A config writes ``data_root = 'data/coco/'`` once and builds paths from it. Once the file is
    read these are plain texts, so changing `data_root` alone would change nothing. This sets every
    text equal to the old value, and every path below it where the old value is a folder (ends with
    a slash).

    Args:
        config: changed in place.
        name: of a top-level variable; nothing happens if it is no text.
        value: its new value; a folder may leave out the closing slash.
    """
    old = config.get(name)
    if not isinstance(old, str) or not isinstance(value, str) or not old:
        return
    if old.endswith("/") and value and not value.endswith("/"):
        value += "/"
    for key in list(config._cfg_dict):
        config._cfg_dict[key] = _replaced(config._cfg_dict[key], old, value)


def _replaced(part: Any, old: str, new: str) -> Any:
    if isinstance(part, dict):
        for key, item in part.items():
            part[key] = _replaced(item, old, new)
        return part
    if isinstance(part, (list, tuple)):
        return type(part)(_replaced(item, old, new) for item in part)
    if isinstance(part, str) and (part == old or (old.endswith("/") and part.startswith(old))):
        return new + part[len(old) :]
    return part
