"""Many pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from llmdet.visualization.palette import RGB
from llmdet.visualization.text import Lettering

_GAP = 8  # pixels around a cell
_FONT = 13
_LINES = 3  # of text below a picture
_BACKGROUND: RGB = (255, 255, 255)
_INK: RGB = (20, 20, 20)


def contact_sheet(
    images: Sequence[np.ndarray], texts: Sequence[str], columns: int = 4, side: int = 420
) -> np.ndarray:
    """Put pictures with a few lines of text below each on one page.

    Args:
        images: [H, W, 3] uint8 RGB, of any size; larger ones are reduced.
        texts: As many texts; what does not fit on three lines loses its middle.
        columns: Pictures in a row.
        side: Side of a picture's cell in pixels.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    lettering = Lettering(_FONT)
    line = lettering.line_height
    cell_width, cell_height = side + _GAP, side + _LINES * line + 2 * _GAP
    rows = -(-len(images) // columns)
    size = (min(columns, len(images)) * cell_width + _GAP, rows * cell_height + _GAP)
    page = Image.new("RGB", size, _BACKGROUND)
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        left = _GAP + number % columns * cell_width
        top = _GAP + number // columns * cell_height
        picture = Image.fromarray(image)
        picture.thumbnail((side, side))
        page.paste(picture, (left, top))
        for row, words in enumerate(lettering.wrap(" ".join(text.split()), side, _LINES)):
            lettering.write(page, (left, top + side + _GAP // 2 + row * line), words, _INK)
    return np.array(page)
