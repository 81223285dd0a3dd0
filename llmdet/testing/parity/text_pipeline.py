"""Recordings of what GLaMM's program makes of annotations, on their way to token ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmdet.testing.parity import grounded_captions, mask_text
from llmdet.testing.parity.rows import Row


def check(folder: Path) -> Iterator[Row]:
    """Compare everything that a folder records."""
    yield from grounded_captions.check(folder)
    yield from mask_text.conversations(folder)
