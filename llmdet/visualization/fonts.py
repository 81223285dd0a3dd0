"""Fonts for names in any script: DejaVu Sans first, then what the machine has installed."""

from __future__ import annotations

import logging
import unicodedata
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from PIL import ImageFont

logger = logging.getLogger(__name__)

# Parts of file names of fonts that hold many characters, best first.
_LIKED = (
    "notosanscjk",
    "sourcehansans",
    "droidsansfallback",
    "wqy",
    "msyh",
    "pingfang",
    "hiragino",
)
_EMOJI = ("notocoloremoji", "seguiemj", "apple color emoji", "twemoji")
_BITMAP_SIZES = (109, 136, 160, 128, 64)  # pixels, in which colour fonts hold their pictures
_FIRST_PICTOGRAPH = 0x1F000
_JOINERS = {0x200C, 0x200D, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)}


def split_by_font(text: str) -> tuple[tuple[Path | None, str], ...]:
    """Cut a text into pieces that one font can write.

    Args:
        text: One line; accents, variation selectors and joined pictographs stay with their base.

    Returns:
        Font file and piece, in the order of the text; the file is None where no font has it.
    """
    clusters: list[str] = []
    for character in text:
        joined = bool(clusters) and clusters[-1].endswith("\u200d")
        if clusters and (joined or _belongs_to_the_last(character)):
            clusters[-1] += character
        else:
            clusters.append(character)
    pieces = groupby(clusters, key=lambda cluster: font_file(cluster[0]))
    return tuple((file, "".join(group)) for file, group in pieces)


def _belongs_to_the_last(character: str) -> bool:
    return ord(character) in _JOINERS or unicodedata.category(character) in ("Mn", "Me", "Mc")


@lru_cache(maxsize=65536)
def font_file(character: str) -> Path | None:
    """Return the first font that has a character, or None."""
    if character.isspace() or unicodedata.category(character) == "Cf":
        return main_font()
    if ord(character) >= _FIRST_PICTOGRAPH:
        candidates = [*(f for f in _installed() if _rank(f, _EMOJI) < len(_EMOJI)), main_font()]
    else:
        candidates = [main_font()]
    for file in (*candidates, *_installed()):
        if ord(character) in _characters(file):
            return file
    return None


@lru_cache(maxsize=1)
def main_font() -> Path:
    """Return DejaVu Sans from matplotlib's wheel: the same letters on every machine."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """List the machine's fonts, those that hold many scripts first."""
    from matplotlib.font_manager import findSystemFonts

    files = [Path(file) for file in findSystemFonts()]
    return tuple(sorted(files, key=lambda file: (_rank(file, _LIKED), _styled(file), str(file))))


def _rank(file: Path, parts: tuple[str, ...]) -> int:
    name = file.name.lower()
    return next((rank for rank, part in enumerate(parts) if part in name), len(parts))


def _styled(file: Path) -> bool:
    return any(style in file.stem.lower() for style in ("bold", "italic", "oblique", "black"))


@lru_cache(maxsize=512)
def _characters(file: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with file.open("rb") as content, TTFont(content, fontNumber=0, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except (TTLibError, OSError, ValueError, KeyError, AssertionError) as error:
        logger.debug("The font %s is left out: %s", file, error)
        return frozenset()


@lru_cache(maxsize=256)
def load_font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    """Load a font at ``size`` pixels, or at the only size that a font of bitmaps has."""
    for pixels in (size, *_BITMAP_SIZES):
        try:
            return ImageFont.truetype(file, pixels)
        except OSError:
            continue
    raise OSError(f"the font {file} has no size that can be scaled to {size} pixels")


def missing_characters(text: str) -> str:
    """Return the characters of a text that no font of this machine has."""
    return "".join(piece for file, piece in split_by_font(text) if file is None)


def writable(text: str, substitute: str) -> str:
    """Return what of a text can be written, never a row of empty boxes.

    Args:
        text: One line.
        substitute: Takes the place of the whole text where a letter of it has no font; signs and
            pictographs without a font are left out.
    """
    missing = missing_characters(text)
    if not missing:
        return text
    _report_missing(missing[:20])
    rest = " ".join("".join(p for file, p in split_by_font(text) if file is not None).split())
    letters = any(unicodedata.category(character)[0] == "L" for character in missing)
    return substitute if letters or not rest else rest


@lru_cache(maxsize=1)
def _first_report() -> list[str]:
    return []


def _report_missing(characters: str) -> None:
    """Say once in a process what to install."""
    said = _first_report()
    if not said:
        said.append(characters)
        logger.warning(
            "No font of this machine has the characters %r: pictures show the label's number "
            "instead, the JSON has the name. Install a font that has them (Debian: "
            "fonts-droid-fallback for Chinese and Japanese, fonts-nanum for Korean, or "
            "fonts-noto-cjk; fonts-noto-color-emoji).",
            characters,
        )
