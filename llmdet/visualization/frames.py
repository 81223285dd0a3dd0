"""Boxes on the frames of a video: as large as the frame, so that all pictures have one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from llmdet.visualization.palette import RGB, text_color
from llmdet.visualization.text import Lettering

_FONT_SCALE = 0.028  # of the frame's shorter side
_SMALLEST_FONT = 10  # pixels
_LINE_SCALE = 0.004


def draw_frame(
    frame: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: Sequence[RGB]
) -> np.ndarray:
    """Draw boxes with a text above each.

    Args:
        frame: [H, W, 3] uint8 RGB; left as it is.
        boxes: [N, 4] float xyxy in pixels.
        texts: N texts, in any script.
        colors: N colours.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    canvas = Image.fromarray(frame)
    side = min(canvas.size)
    lettering = Lettering(max(_SMALLEST_FONT, round(_FONT_SCALE * side)))
    line = max(1, round(_LINE_SCALE * side))
    draw = ImageDraw.Draw(canvas)
    corners = np.asarray(boxes).round().astype(int).tolist()
    for (x1, y1, x2, y2), color in zip(corners, colors, strict=True):
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=line)
    for (x1, y1, *_), text, color in zip(corners, texts, colors, strict=True):
        width, height = round(lettering.width(text)) + 4, lettering.line_height
        left = min(max(0, x1), max(0, canvas.width - width))
        top = y1 - height if y1 >= height else y1
        draw.rectangle((left, top, left + width - 1, top + height - 1), fill=color)
        lettering.write(canvas, (left + 2, top), text, text_color(color))
    return np.array(canvas)
