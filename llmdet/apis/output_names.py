"""Under which names the results of files are saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

#: Formats that every viewer opens; of other images the picture with boxes is a PNG.
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def picture_suffix(path: Path) -> str:
    """Of the picture with boxes that is saved for an image."""
    suffix = path.suffix.lower()
    return suffix if suffix in _PICTURE_SUFFIXES else ".png"


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return a distinct name for each file.

    That is its stem; where stems are equal, with the folders that tell the files apart in front
    (``left_cat``, ``right_cat``) or the suffix behind (``cat_jpg``, ``cat_png``).
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stem, []).append(path)
    names = []
    for path in paths:
        namesakes = groups[path.stem]
        common = os.path.commonpath([os.path.abspath(other.parent) for other in namesakes])
        folders = Path(os.path.abspath(path.parent)).relative_to(common).parts
        name = "_".join([*folders, path.stem])
        if sum(other.parent == path.parent for other in namesakes) > 1:
            name = f"{name}_{path.suffix.lstrip('.')}"
        names.append(name)
    return _numbered(names)


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell apart what is still equal, such as one file given twice."""
    result: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        result.append(unique)
    return result
