"""Whether what a model says about a toy image is true: its objects and their places.

Sizes, the number of objects and the background are not judged, and what is no sentence of the toy
set's captions counts as not said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmdet.datasets.toy.captions import PLACES, position
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES, Kind

_KIND = rf"(?:small |large )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_PLACE = "|".join(place for row in PLACES for place in row)
_OBJECT = re.compile(rf"\bAn? {_KIND} is ({_PLACE})\.")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Tally:
    """Counts of what was asked, said and right; tallies of several images add up."""

    objects: int = 0  # in the images
    named: int = 0  # sentences that name an object
    found: int = 0  # of them those whose colour and shape stand for an object of their own
    placed: int = 0  # of these those whose ninth of the image is right too

    def __add__(self, other: Tally) -> Tally:
        mine, theirs = asdict(self), asdict(other)
        return Tally(**{key: mine[key] + theirs[key] for key in mine})

    def shares(self) -> dict[str, float]:
        """Shares in 0..1: ``recall`` and ``precision`` of objects, ``place`` of those found; NaN
        where nothing was said."""
        pairs = {
            "recall": (self.found, self.objects),
            "precision": (self.found, self.named),
            "place": (self.placed, self.found),
        }
        return {
            key: part / whole if whole else float("nan") for key, (part, whole) in pairs.items()
        }


def judge_description(
    text: str,
    kinds: Sequence[Kind],
    boxes: Sequence[Sequence[float]],
    size: tuple[float, float],
) -> Tally:
    """Compare a description in the words of the toy set with what is in the image.

    Args:
        text: as :func:`llmdet.datasets.toy.captions.long_caption` would put it.
        kinds: of the N objects.
        boxes: [N, 4] xyxy in pixels of the image.
        size: width and height of the image in pixels.

    Returns:
        The counts of this image.
    """
    truth = list(zip(kinds, boxes, strict=True))
    places = Counter((kind, position(box, *size)) for kind, box in truth)
    said = Counter((Kind(colour, shape), place) for colour, shape, place in _OBJECT.findall(text))
    named: Counter[Kind] = Counter()
    for (kind, _), count in said.items():
        named[kind] += count
    return Tally(
        objects=len(truth),
        named=sum(named.values()),
        found=(named & Counter(kinds)).total(),
        placed=(said & places).total(),
    )


def judge_phrase(text: str, kind: Kind) -> tuple[bool, bool]:
    """Compare a phrase with the object it was said of.

    Args:
        text: the phrase; other words than colours and shapes do not matter.
        kind: of the object.

    Returns:
        Whether the one colour it names is right, and whether the one shape is.
    """
    words = _WORD.findall(text.lower())
    colours = [word for word in words if word in COLOURS]
    shapes = [word for word in words if word in SHAPES]
    return colours == [kind.colour], shapes == [kind.shape]
