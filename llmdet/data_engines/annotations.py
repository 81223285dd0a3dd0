"""The annotated pictures that an engine begins with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image

from llmdet.datasets.formats import ReadOptions, identity, open_source
from llmdet.datasets.formats.samples import Instance, Source
from llmdet.datasets.formats.writing import readable_name
from llmdet.datasets.ledger import Ledger


@dataclass(frozen=True)
class Annotations:
    """Annotations in any format of the converters, and their pictures.

    Attributes:
        path: an annotation file, or the folder of a format that has one file per image.
        images: the folder of the pictures.
        source_format: a key of :data:`llmdet.datasets.formats.READERS`, where the name of the
            file does not tell it.
        options: what the annotations themselves do not say.
    """

    path: Path
    images: Path
    source_format: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def open(self, ledger: Ledger) -> Source:
        """The samples, which are read as they are needed."""
        return open_source(self.path, self.source_format, self.options, ledger)

    @property
    def identity(self) -> dict[str, object]:
        """All that decides the samples, for a journal."""
        return {
            **identity(self.path, self.source_format, self.options),
            "images": str(self.images.resolve()),
        }


def name_of(instance: Instance) -> str:
    """What an instance is called, as it is written in a sentence."""
    phrase = instance.phrase
    return readable_name(phrase if isinstance(phrase, str) else phrase[0])


def largest_instances(instances: Iterable[Instance], count: int) -> list[Instance]:
    """The instances with the largest boxes, the largest first."""

    def area(instance: Instance) -> float:
        x1, y1, x2, y2 = instance.bbox
        return (x2 - x1) * (y2 - y1)

    return sorted(instances, key=area, reverse=True)[:count]


class _Boxed(Protocol):
    @property
    def bbox(self) -> list[float]:
        """x1, y1, x2, y2 in pixels of the picture."""


_Object = TypeVar("_Object", bound=_Boxed)


def close_ups(
    image: Image.Image, objects: Iterable[_Object], least_side: int, margin: float = 0.0
) -> list[tuple[_Object, Image.Image]]:
    """Objects with what their boxes show, without those that show next to nothing.

    Args:
        image: the picture.
        objects: instances of it, or whatever else has a ``bbox``.
        least_side: of a close-up's shorter side, in pixels.
        margin: as of :func:`crop`.
    """
    shown = [(one, crop(image, one.bbox, margin)) for one in objects]
    return [(one, part) for one, part in shown if part is not None and min(part.size) >= least_side]


def crop(image: Image.Image, box: list[float], margin: float = 0.0) -> Image.Image | None:
    """What a box shows, None where it lies outside the picture.

    Args:
        image: the picture.
        box: x1, y1, x2, y2 in its pixels.
        margin: part of the box's sides that is shown around it.
    """
    x1, y1, x2, y2 = box
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(0, round(x1 - dx)), max(0, round(y1 - dy))
    right, bottom = min(image.width, round(x2 + dx)), min(image.height, round(y2 + dy))
    if right - left < 1 or bottom - top < 1:
        return None
    return image.crop((left, top, right, bottom))
