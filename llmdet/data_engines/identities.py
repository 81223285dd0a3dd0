"""What decides an engine's rows, in short texts by which a sentence can tell it from another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llmdet.datasets.jsonl_index import file_digest


def hash_of(content: bytes) -> str:
    """A short hash."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def hash_of_config(config: Any) -> str:
    """What a config says, as "of hash ..."."""
    return f"of hash {hash_of(json.dumps(config.to_dict(), default=str).encode())}"


def hash_of_files(path: str | Path | None) -> str:
    """A file, or all files of a folder, as "of hash ..."; the name itself where there is none."""
    place = Path(path or "")
    if path is None or not place.exists():
        return str(path)
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            with file.open("rb") as opened:
                digest.update(file_digest(opened.fileno()))
    return f"of hash {digest.hexdigest()}"
