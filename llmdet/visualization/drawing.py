"""Boxes with labels and scores on a picture, legible at any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from llmdet.visualization.fonts import writable
from llmdet.visualization.legend import LegendEntry, below, draw_legend
from llmdet.visualization.palette import DISTINCT_COLORS, RGB, detection_colors, text_color
from llmdet.visualization.placement import leader, place_labels
from llmdet.visualization.text import Lettering

_LEGIBLE = 720  # pixels, the square root of the area to which smaller images are enlarged
_LONGEST = 1600  # pixels, the side up to which they are
_SMALLEST_FONT = 12  # pixels; below it letters run together
_FONT_SCALE = 0.024  # of the square root of the picture's area: 25 px at 800 x 1333
_LINE_SCALE = 0.0042
_MOST_LABELS = 14  # with names; more of them get a legend
_LINE_OF_TEXT = 0.4  # of the picture's width, before a phrase is wrapped
_MOST_LINES = 3
_TINT = 0.45  # share of its colour in a drawn mask
_LEADER = 0.25  # of a label's height: the distance from its box that needs a line


@dataclass(frozen=True)
class DrawnBoxes:
    """A picture of N detections, and where things are on it."""

    picture: np.ndarray  # [H, W, 3] uint8 RGB
    scale: float  # pixels of the picture per pixel of the image, which begins at the upper left
    labels: np.ndarray  # [N, 4] int64 xyxy in pixels of the picture; zeros where there is none
    legend: tuple[LegendEntry, ...]
    lettering: Lettering  # of labels and legend


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
    scores: Sequence[float | None] | np.ndarray | None = None,
    palette: str | Sequence[RGB] = "none",
    *,
    captions: Sequence[str] | None = None,
    description: str = "",
    classes: Iterable[str] | None = None,
) -> DrawnBoxes:
    """Draw boxes with their names and scores on an image, enlarged where it is small.

    Labels stay off their objects where there is room, and never hide each other. Where there are
    too many for that, they hold the score alone, and a legend below the picture names the
    colours. Captions and the description stand below the picture.

    Args:
        image: [H, W, 3] uint8 RGB; left as it is.
        boxes: [N, 4] float xyxy in pixels of the image; parts outside are cut off.
        labels: N indices of the classes.
        names: N texts, in any script.
        scores: N numbers in 0..1, shown as percent; None, of all or of some, shows the name alone.
        palette: See :func:`llmdet.visualization.palette.detection_colors`.
        captions: N texts; one that only repeats the name is left out.
        description: Of the whole image.
        classes: All names that were looked for, see ``detection_colors``.
    """
    scale = _enlargement(image)
    canvas = _enlarged(image, scale)
    lettering = Lettering(_font_size(canvas.size))
    drawn = _DetectionsToDraw.of(boxes, labels, names, scores, captions, scale, canvas.size)
    colors = detection_colors(names, labels, palette, classes)
    line = max(2, round(_LINE_SCALE * (canvas.width * canvas.height) ** 0.5))
    _draw_outlines(canvas, drawn.boxes, colors, line)
    texts, places, legend = _arrange(drawn, colors, lettering, canvas.size)
    _draw_labels(canvas, drawn.boxes, texts, places, colors, lettering, line)
    picture = np.array(canvas)
    description = writable(" ".join(description.split()), "")
    if legend or description:
        page = draw_legend(
            canvas.width,
            legend,
            lettering,
            description=description,
            in_rows=any(drawn.captions),
            most_height=canvas.height,
        )
        picture = below(picture, page)
    return DrawnBoxes(picture, scale, places, tuple(legend), lettering)


def draw_numbered_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw boxes with their numbers, from 1, every one of which can be read.

    Args:
        image: [H, W, 3] uint8 RGB; left as it is.
        boxes: [N, 4] float xyxy in pixels of the image; parts outside are cut off.

    Returns:
        [h, w, 3] uint8 RGB, enlarged where the image is small.
    """
    scale = _enlargement(image)
    canvas = _enlarged(image, scale)
    lettering = Lettering(_font_size(canvas.size))
    numbers = [str(1 + index) for index in range(len(boxes))]
    drawn = _DetectionsToDraw.of(boxes, range(len(boxes)), numbers, None, None, scale, canvas.size)
    colors = [DISTINCT_COLORS[index % len(DISTINCT_COLORS)] for index in drawn.labels]
    line = max(2, round(_LINE_SCALE * (canvas.width * canvas.height) ** 0.5))
    _draw_outlines(canvas, drawn.boxes, colors, line)
    texts = [[number] for number in numbers]
    places, fits = _place(drawn, texts, lettering, canvas.size)
    for index in np.flatnonzero(~fits):  # rather over another number's edge than nowhere
        width = round(lettering.width(numbers[index])) + 2 * lettering.padding
        x, y = np.minimum(
            drawn.boxes[index, :2], [canvas.width - width, canvas.height - lettering.line_height]
        ).astype(int)
        places[index] = x, y, x + width, y + lettering.line_height
    _draw_labels(canvas, drawn.boxes, texts, places, colors, lettering, line)
    return np.array(canvas)


def tint_masks(image: np.ndarray, masks: Sequence[np.ndarray], colors: Sequence[RGB]) -> np.ndarray:
    """The image [H, W, 3] uint8 RGB with N masks [H, W] bool in their colours, seen through."""
    pixels = image.copy()
    for mask, color in zip(masks, colors, strict=True):
        tinted = (1 - _TINT) * pixels[mask] + _TINT * np.asarray(color)
        pixels[mask] = tinted.astype(np.uint8)
    return pixels


@dataclass(frozen=True)
class _DetectionsToDraw:
    """N detections in pixels of the picture, with texts that can be written."""

    boxes: np.ndarray  # [N, 4] float64 xyxy
    labels: list[int]
    names: list[str]
    scores: list[str]  # percent; "" where there are none
    captions: list[str]  # "" where there is none, or none that says more than the name

    @classmethod
    def of(
        cls,
        boxes: np.ndarray,
        labels: Sequence[int],
        names: Sequence[str],
        scores: Sequence[float | None] | np.ndarray | None,
        captions: Sequence[str] | None,
        scale: float,
        size: tuple[int, int],
    ) -> _DetectionsToDraw:
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
        limit = np.array([*size, *size]) - 1
        indices = [int(label) for label in labels]
        plain = [" ".join(name.split()) for name in names]
        said = [" ".join(text.split()) for text in captions or [""] * len(plain)]
        pairs = zip(plain, said, strict=True)
        return cls(
            np.clip(corners, 0, limit),
            indices,
            [writable(n, f"label {i}") for n, i in zip(plain, indices, strict=True)],
            [_percent(s) for s in ([None] * len(plain) if scores is None else scores)],
            ["" if _same(name, text) else writable(text, "") for name, text in pairs],
        )

    def order(self) -> list[int]:
        """Best score first."""
        keys = [-float(score[:-1]) if score else 0.0 for score in self.scores]
        return np.argsort(keys, kind="stable").tolist()


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * float(score):.0f}%"


def _same(name: str, caption: str) -> bool:
    return name.strip(" .").casefold() == caption.strip(" .").casefold()


def _enlargement(image: np.ndarray) -> float:
    height, width = image.shape[:2]
    wanted = _LEGIBLE / (height * width) ** 0.5
    return max(1.0, min(wanted, _LONGEST / max(height, width)))


def _enlarged(image: np.ndarray, scale: float) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    if scale == 1:
        return picture
    size = (round(scale * picture.width), round(scale * picture.height))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _font_size(size: tuple[int, int]) -> int:
    return max(_SMALLEST_FONT, round(_FONT_SCALE * (size[0] * size[1]) ** 0.5))


def _arrange(
    drawn: _DetectionsToDraw,
    colors: Sequence[RGB],
    lettering: Lettering,
    size: tuple[int, int],
) -> tuple[list[list[str]], np.ndarray, list[LegendEntry]]:
    """Choose what the labels say and where they stand, and what the legend explains.

    Returns:
        Lines of each label, [N, 4] places (zeros where a label has none), and the legend.
    """
    count = len(drawn.names)
    legend: list[LegendEntry] = []
    numbers = [""] * count
    if any(drawn.captions):
        numbers = [str(1 + index) for index in range(count)]
        rows = zip(drawn.names, drawn.captions, colors, numbers, strict=True)
        legend = [LegendEntry(said or name, c, number) for name, said, c, number in rows]
    width = min(size[0] - lettering.size, max(_LINE_OF_TEXT * size[0], 8 * lettering.size))
    full = zip(numbers, drawn.names, drawn.scores, strict=True)
    texts = [lettering.wrap(" ".join(filter(None, p)), width, _MOST_LINES) for p in full]
    if count <= _MOST_LABELS:
        places, fits = _place(drawn, texts, lettering, size)
        if fits.all():
            return texts, places, legend
    if not legend:
        numbers, legend = _class_legend(drawn, colors)
    tags = zip(numbers, drawn.scores, strict=True)
    texts = [[number or score] for number, score in tags]
    places, _ = _place(drawn, texts, lettering, size)
    return texts, places, legend


def _class_legend(
    drawn: _DetectionsToDraw, colors: Sequence[RGB]
) -> tuple[list[str], list[LegendEntry]]:
    """Name each class once; more of them than there are colours are numbered."""
    counts = Counter(drawn.names)
    color_of = dict(zip(drawn.names, colors, strict=True))
    tags = dict.fromkeys(counts, "")
    if len(counts) > len(DISTINCT_COLORS) or (len(counts) > 1 and not any(drawn.scores)):
        tags = {name: str(1 + number) for number, name in enumerate(counts)}
    entries = [
        LegendEntry(f"{name} \u00d7 {count}" if count > 1 else name, color_of[name], tags[name])
        for name, count in counts.items()
    ]
    return [tags[name] for name in drawn.names], entries


def _place(
    drawn: _DetectionsToDraw,
    texts: Sequence[Sequence[str]],
    lettering: Lettering,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return [N, 4] places of labels, best scores choosing first, and [N] which have one."""
    padding = 2 * lettering.padding
    sizes = np.array(
        [
            (round(max(map(lettering.width, rows))) + padding, len(rows) * lettering.line_height)
            for rows in texts
        ]
    ).reshape(-1, 2)
    order = drawn.order()
    placement = place_labels(drawn.boxes[order], sizes[order], size)
    places = np.zeros((len(order), 4), dtype=np.int64)
    fits = np.zeros(len(order), dtype=bool)
    empty = np.array([not any(rows) for rows in texts], dtype=bool)
    fits[order] = placement.fits
    places[order] = placement.places
    places[~fits | empty] = 0
    return places, fits


def _draw_outlines(
    canvas: Image.Image, boxes: np.ndarray, colors: Sequence[RGB], line: int
) -> None:
    """Draw large boxes first, so that small ones stay visible on top of them."""
    draw = ImageDraw.Draw(canvas)
    halo = max(1, line // 3)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        x1, y1, x2, y2 = (round(value) for value in boxes[index])
        outside = (x1 - halo, y1 - halo, x2 + halo, y2 + halo)
        draw.rectangle(outside, outline=text_color(colors[index]), width=line + 2 * halo)
        draw.rectangle((x1, y1, x2, y2), outline=colors[index], width=line)


def _draw_labels(
    canvas: Image.Image,
    boxes: np.ndarray,
    texts: Sequence[Sequence[str]],
    places: np.ndarray,
    colors: Sequence[RGB],
    lettering: Lettering,
    line: int,
) -> None:
    draw = ImageDraw.Draw(canvas)
    shown = [index for index in range(len(texts)) if places[index].any()]
    for index in shown:
        start, end = leader(places[index].astype(np.float64), boxes[index])
        if np.abs(start - end).max() > _LEADER * lettering.size:
            points = [tuple(start), tuple(end)]
            draw.line(points, fill=text_color(colors[index]), width=line + 2)
            draw.line(points, fill=colors[index], width=line)
    for index in shown:
        x1, y1, x2, y2 = places[index].tolist()
        ink = text_color(colors[index])
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colors[index])
        for row, text in enumerate(texts[index]):
            at = (x1 + lettering.padding, y1 + row * lettering.line_height)
            lettering.write(canvas, at, text, ink)
