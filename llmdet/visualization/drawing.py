"""Boxes with labels and scores on a picture, legible at any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llmdet.visualization.palette import RGB, label_color, text_color
from llmdet.visualization.placement import place_labels

_SMALLEST_FONT = 10  # pixels; below it letters run together
_FONT_SCALE = 0.023  # of the square root of the image's area: 22 px at 800 x 1333
_LINE_SCALE = 0.0038  # 4 px at 800 x 1333
_CROWD = 25  # boxes; more of them get smaller labels
_LINE_OF_TEXT = 0.45  # of the picture's width, before a phrase is wrapped
_MOST_LINES = 3
_HALO_SHADE = 0.3  # of the colour's brightness, around the lines of larger pictures
_ELLIPSIS = "…"


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    palette: str | Sequence[RGB] = "none",
) -> np.ndarray:
    """Draw boxes with their names and scores; line width and font follow the image's size.

    Labels stay inside the picture, keep off each other where there is room, and are written in
    black or white on the colour of their label, which is the same in every picture.

    Args:
        image: [H, W, 3] uint8 RGB; left as it is.
        boxes: [N, 4] float xyxy in pixels of the image; parts outside are cut off.
        labels: N indices that choose the colours.
        names: N texts.
        scores: N numbers in 0..1, shown as percent; None shows the names alone.
        palette: See :func:`llmdet.visualization.palette.label_color`.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    if len(boxes) == 0:
        return np.array(canvas)
    width, height = canvas.size
    limit = np.array([width, height, width, height]) - 1
    corners = np.clip(np.asarray(boxes, dtype=np.float64), 0, limit)
    colors = [label_color(int(label), palette) for label in labels]
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(_LINE_SCALE * (width * height) ** 0.5))
    _draw_outlines(draw, corners, colors, line)
    texts = [" ".join(name.split()) for name in names]
    if scores is not None:
        texts = [f"{t} {100 * float(score):.0f}" for t, score in zip(texts, scores, strict=True)]
    order = range(len(texts)) if scores is None else np.argsort(-np.asarray(scores), kind="stable")
    _draw_labels(draw, corners, texts, colors, [int(i) for i in order], line)
    return np.array(canvas)


def _draw_outlines(
    draw: ImageDraw.ImageDraw, boxes: np.ndarray, colors: Sequence[RGB], line: int
) -> None:
    """Draw large boxes first, so that small ones stay visible on top of them."""
    halo = line // 3
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        x1, y1, x2, y2 = (round(value) for value in boxes[index])
        if halo:
            shade = tuple(int(_HALO_SHADE * value) for value in colors[index])
            outside = (x1 - halo, y1 - halo, x2 + halo, y2 + halo)
            draw.rectangle(outside, outline=shade, width=line + 2 * halo)
        draw.rectangle((x1, y1, x2, y2), outline=colors[index], width=line)


def _draw_labels(
    draw: ImageDraw.ImageDraw,
    boxes: np.ndarray,
    texts: Sequence[str],
    colors: Sequence[RGB],
    order: Sequence[int],
    line: int,
) -> None:
    """Draw the labels in reverse ``order``, so that the first ones lie on top."""
    width, height = draw.im.size
    font = _font(_font_size(width, height, len(texts)))
    ascent, descent = font.getmetrics()
    padding = max(1, round(font.size * 0.2))
    wrap_width = min(width - 2 * padding, max(_LINE_OF_TEXT * width, 8 * font.size))
    wrapped = [_wrap(text, font, wrap_width) for text in texts]
    sizes = np.array([_text_size(rows, font, padding) for rows in wrapped])
    order = list(order)
    places = place_labels(boxes[order], sizes[order], (width, height), gap=line)
    for index, (x1, y1, x2, y2) in reversed(list(zip(order, places.tolist(), strict=True))):
        background = colors[index]
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=background)
        for row, text in enumerate(wrapped[index]):
            baseline = (x1 + padding, y1 + ascent + row * (ascent + descent))
            draw.text(baseline, text, fill=text_color(background), font=font, anchor="ls")


def _font_size(width: int, height: int, labels: int) -> int:
    crowd = min(1.0, max(0.6, (_CROWD / labels) ** 0.5))
    return max(_SMALLEST_FONT, round(_FONT_SCALE * crowd * (width * height) ** 0.5))


def _text_size(rows: Sequence[str], font: ImageFont.FreeTypeFont, padding: int) -> tuple[int, int]:
    ascent, descent = font.getmetrics()
    width = max(font.getlength(row) for row in rows)
    return round(width) + 2 * padding, len(rows) * (ascent + descent)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text between words; what needs too many rows loses its middle, not its score."""
    rows = [""]
    words = text.split(" ")
    for position, word in enumerate(words):
        longer = f"{rows[-1]} {word}".strip()
        if font.getlength(longer) <= width or not rows[-1]:
            rows[-1] = longer
        elif len(rows) < _MOST_LINES:
            rows.append(word)
        else:
            rows[-1] = f"{rows[-1]} {' '.join(words[position:])}"
            break
    return [_shorten(row, font, width) for row in rows]


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    head, space, tail = text.rpartition(" ")
    if not space:
        head, tail = text, ""
    end = f"{_ELLIPSIS} {tail}".rstrip()
    while head and font.getlength(head + end) > width:
        head = head[:-1].rstrip()
    return head + end


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans from matplotlib's wheel: the same letters on every machine."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
