"""Writing on pictures: lines of any script, measured, wrapped and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llmdet.visualization.fonts import load_font, main_font, split_by_font
from llmdet.visualization.palette import RGB

_ELLIPSIS = "…"


@dataclass(frozen=True)
class Lettering:
    """Letters of one size.

    Attributes:
        size: Pixels from the top of a letter to the bottom of a descender, about.
    """

    size: int

    @property
    def line_height(self) -> int:
        """Pixels from line to line."""
        return sum(self._main().getmetrics())

    @property
    def padding(self) -> int:
        """Pixels beside a text in its coloured field."""
        return max(2, round(0.28 * self.size))

    def width(self, text: str) -> float:
        """Pixels that one line takes."""
        return _width(text, self.size)

    def write(self, canvas: Image.Image, place: tuple[int, int], text: str, color: RGB) -> None:
        """Write one line with its upper left corner at ``place`` (x, y)."""
        draw = ImageDraw.Draw(canvas)
        left, baseline = float(place[0]), place[1] + self._main().getmetrics()[0]
        for file, piece in split_by_font(text):
            if file is None:
                continue
            font = load_font(file, self.size)
            if font.size == self.size:
                at = (left, baseline)
                draw.text(at, piece, fill=color, font=font, anchor="ls", embedded_color=True)
            else:
                _paste_bitmaps(canvas, (round(left), place[1]), piece, font, self)
            left += _piece_width(file, piece, self.size)

    def wrap(self, text: str, width: float, most_lines: int) -> list[str]:
        """Break a text between words; what needs too many lines loses its middle, not its end."""
        rows = [""]
        words = _words(text)
        for position, word in enumerate(words):
            longer = (rows[-1] + word).strip()
            if self.width(longer) <= width or not rows[-1]:
                rows[-1] = longer
            elif len(rows) < most_lines:
                rows.append(word.strip())
            else:
                rows[-1] += "".join(words[position:])
                break
        return [self._shorten(row, width) for row in rows]

    def _shorten(self, text: str, width: float) -> str:
        if self.width(text) <= width:
            return text
        head, space, tail = text.rpartition(" ")
        if not space:
            head, tail = text, ""
        end = f"{_ELLIPSIS} {tail}".rstrip()
        while head and self.width(head + end) > width:
            head = head[:-1].rstrip()
        return head + end

    def _main(self) -> ImageFont.FreeTypeFont:
        return load_font(main_font(), self.size)


def _words(text: str) -> list[str]:
    """Cut a text where a line may end: before spaces, and between characters of Chinese."""
    words: list[str] = []
    for character in text:
        starts = character == " " or _is_ideograph(character)
        if not words or starts or _is_ideograph(words[-1][-1]):
            words.append(character)
        else:
            words[-1] += character
    return words


def _is_ideograph(character: str) -> bool:
    return 0x2E80 <= ord(character) <= 0x9FFF or 0x20000 <= ord(character) <= 0x3FFFF


def _paste_bitmaps(
    canvas: Image.Image,
    place: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont,
    lettering: Lettering,
) -> None:
    """Paste pictographs that their font holds at another size."""
    width = max(1, round(font.getlength(text)))
    height = sum(font.getmetrics())
    page = Image.new("RGBA", (width, height))
    ImageDraw.Draw(page).text((0, 0), text, font=font, embedded_color=True)
    scale = lettering.line_height / height
    page = page.resize((max(1, round(width * scale)), lettering.line_height))
    canvas.paste(page, place, page)


@lru_cache(maxsize=8192)
def _width(text: str, size: int) -> float:
    pieces = split_by_font(text)
    return sum(_piece_width(file, piece, size) for file, piece in pieces if file is not None)


def _piece_width(file: Path, piece: str, size: int) -> float:
    font = load_font(file, size)
    width = font.getlength(piece)
    if font.size != size:
        width *= Lettering(size).line_height / sum(font.getmetrics())
    return width
