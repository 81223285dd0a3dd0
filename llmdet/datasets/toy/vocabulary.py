"""The colours and shapes of the toy set, and which combinations training never shows."""

from __future__ import annotations

from dataclasses import dataclass

#: Colour word -> RGB, 0..255; backgrounds stay grey, so that all of them stand out.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (38, 160, 66),
    "blue": (38, 84, 214),
    "yellow": (240, 220, 50),
    "orange": (247, 140, 28),
    "purple": (146, 60, 186),
    "white": (250, 250, 250),
    "black": (12, 12, 12),
}

#: Shape word -> its plural.
SHAPES: dict[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}


@dataclass(frozen=True, order=True)
class Kind:
    """A colour-shape combination, the class of an object."""

    colour: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


#: Never drawn in training images and never named in training text. Each colour is held out
#: once and each shape at most twice, so both words of every one of them are learnt elsewhere.
HELD_OUT: tuple[Kind, ...] = (
    Kind("red", "star"),
    Kind("green", "circle"),
    Kind("blue", "triangle"),
    Kind("yellow", "cross"),
    Kind("orange", "square"),
    Kind("purple", "ring"),
    Kind("white", "circle"),
    Kind("black", "star"),
)
ALL_KINDS: tuple[Kind, ...] = tuple(Kind(c, s) for c in COLOURS for s in SHAPES)
SEEN: tuple[Kind, ...] = tuple(kind for kind in ALL_KINDS if kind not in HELD_OUT)

SEEN_NAMES: tuple[str, ...] = tuple(kind.name for kind in SEEN)
HELD_OUT_NAMES: tuple[str, ...] = tuple(kind.name for kind in HELD_OUT)
#: Label order of the whole set: the seen classes first, so that their labels are the same
#: whether or not the held-out ones are listed.
CLASS_NAMES: tuple[str, ...] = SEEN_NAMES + HELD_OUT_NAMES

#: Class name -> COCO and LVIS category id. Ids follow the colour-shape table and not the
#: labels, so a reader that confuses the two fails on the toy set already.
CATEGORY_IDS: dict[str, int] = {kind.name: index for index, kind in enumerate(ALL_KINDS, start=1)}
