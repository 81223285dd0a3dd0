"""What stands below a picture: its classes with their colours, captions, and a description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from llmdet.visualization.palette import RGB, text_color
from llmdet.visualization.text import Lettering

_BACKGROUND: RGB = (255, 255, 255)
_INK: RGB = (28, 28, 30)
_MOST_LINES = 3  # of one entry
_MOST_DESCRIPTION = 8  # lines


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend."""

    text: str
    color: RGB
    tag: str = ""  # what stands on the picture, in the coloured field before the text


def draw_legend(
    width: int,
    entries: Sequence[LegendEntry],
    lettering: Lettering,
    *,
    description: str = "",
    in_rows: bool = False,
    most_height: int | None = None,
) -> Image.Image:
    """Draw a description and a legend.

    Args:
        width: Pixels, that of the picture above.
        entries: What is explained.
        lettering: Size of the letters.
        description: Stands above the entries.
        in_rows: Each entry begins a line of its own; else they follow each other.
        most_height: Pixels after which the remaining entries are counted only.

    Returns:
        A picture of that width.
    """
    margin = max(4, round(0.6 * lettering.size))
    step = lettering.line_height + max(2, lettering.size // 4)
    room = max(width - 2 * margin, 1)
    words = lettering.wrap(description, room, _MOST_DESCRIPTION) if description else []
    placed, bottom = _flow(entries, lettering, room, step, in_rows)
    top = len(words) * step
    limit = None if most_height is None else max(most_height - top - 2 * margin, step)
    left_out = 0
    if limit is not None and bottom > limit:
        kept = [item for item in placed if item[1] + step * len(item[2]) + step <= limit]
        left_out = len(placed) - len(kept)
        placed = kept
        bottom = max((y + step * len(rows) for _, y, rows, _ in placed), default=0) + step
    page = Image.new("RGB", (width, top + bottom + 2 * margin), _BACKGROUND)
    for number, line in enumerate(words):
        lettering.write(page, (margin, margin + number * step), line, _INK)
    for x, y, rows, entry in placed:
        _draw_entry(page, (margin + x, margin + top + y), rows, entry, lettering, step)
    if left_out:
        at = (margin, margin + top + bottom - step)
        lettering.write(page, at, f"… and {left_out} more", _INK)
    return page


def below(picture: np.ndarray, page: Image.Image) -> np.ndarray:
    """Put a page of the same width below a [H, W, 3] uint8 RGB picture."""
    return np.concatenate([picture, np.asarray(page)])


def _flow(
    entries: Sequence[LegendEntry], lettering: Lettering, room: int, step: int, in_rows: bool
) -> tuple[list[tuple[int, int, list[str], LegendEntry]], int]:
    """Return the place (x, y) and lines of each entry, and the height of all."""
    placed = []
    x = y = 0
    rows_here = 1
    for entry in entries:
        field = _field_width(entry, lettering)
        rows = lettering.wrap(entry.text, max(room - field, 1), _MOST_LINES)
        width = field + round(max(lettering.width(row) for row in rows)) + lettering.size
        if x and (in_rows or x + width - lettering.size > room):
            x, y = 0, y + rows_here * step
            rows_here = 1
        placed.append((x, y, rows, entry))
        rows_here = max(rows_here, len(rows))
        x += width
    return placed, y + rows_here * step if placed else 0


def _field_width(entry: LegendEntry, lettering: Lettering) -> int:
    tag = round(lettering.width(entry.tag)) + lettering.size // 2 if entry.tag else 0
    return max(lettering.size, tag) + lettering.size // 2


def _draw_entry(
    page: Image.Image,
    place: tuple[int, int],
    rows: Sequence[str],
    entry: LegendEntry,
    lettering: Lettering,
    step: int,
) -> None:
    x, y = place
    field = _field_width(entry, lettering)
    right, height = x + field - lettering.size // 2, lettering.line_height
    draw = ImageDraw.Draw(page)
    draw.rounded_rectangle((x, y + 1, right, y + height - 2), lettering.size // 5, entry.color)
    if entry.tag:
        left = (x + right - lettering.width(entry.tag)) / 2
        lettering.write(page, (round(left), y), entry.tag, text_color(entry.color))
    for number, row in enumerate(rows):
        lettering.write(page, (x + field, y + number * step), row, _INK)
