"""Large images in overlapping tiles, so that small objects are not scaled away.

A box that ends at a tile's border may be a part of an object. Two boxes are of one object where
they agree in what both tiles show; a complete box replaces the parts that lie on it, and parts
that no tile completes are joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from llmdet.apis.calls import Ask
from llmdet.apis.images import Source
from llmdet.apis.merge import nms
from llmdet.apis.reading import Request
from llmdet.apis.results import Picture, Results
from llmdet.datasets.pictures import read_picture
from llmdet.errors import ConfigError, DataError

#: Boxes of one label that overlap by more than this (IoU) in what two tiles show are one object.
_SAME_OBJECT = 0.5
#: A cut box is a part of a complete one where that covers more than this of its area.
_COVERED = 0.7
#: Boxes end this near to the border of the tile that cuts them: pixels, and a part of its size.
_NEAR_BORDER = (2.0, 0.01)
_SMALLEST = 32  # pixels, the least size of a tile

#: ``Detector``'s loop over images: (items, request, batch_size, return_errors) -> results.
Stream = Callable[[Iterator[tuple[Source, Ask]], Request, int, bool], Iterator[Results | DataError]]


@dataclass(frozen=True)
class Tiles:
    """How large images are cut.

    Attributes:
        size: side of a tile in pixels of the image. Images that are no larger are not cut.
        overlap: the least part of a tile that it shares with the next, from 0.05 to 0.9. Objects up
            to ``overlap * size`` pixels are complete in some tile.
        whole: look at the whole image too, scaled as without tiles, for what is larger than that.

    Raises:
        ConfigError: a value is out of its range.
    """

    size: int = 1024
    overlap: float = 0.2
    whole: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < _SMALLEST:
            raise ConfigError(f"The size of tiles is {self.size!r}: it is {_SMALLEST} or more.")
        if not 0.05 <= self.overlap <= 0.9:
            raise ConfigError(f"The overlap of tiles is {self.overlap!r}: it is from 0.05 to 0.9.")

    def windows(self, width: int, height: int) -> np.ndarray:
        """The tiles of an image as [T, 4] int64 xyxy in its pixels, row by row.

        They are of one size and cover the image evenly.
        """
        columns, rows = self._starts(width), self._starts(height)
        side = np.array([min(self.size, width), min(self.size, height)])
        corners = np.array([(x, y) for y in rows for x in columns], dtype=np.int64)
        return np.concatenate([corners, corners + side], axis=1)

    def _starts(self, length: int) -> np.ndarray:
        if length <= self.size:
            return np.zeros(1, dtype=np.int64)
        step = self.size * (1 - self.overlap)
        count = 1 + math.ceil((length - self.size) / max(step, 1))
        return np.linspace(0, length - self.size, count).round().astype(np.int64)


def as_tiles(tiles: Tiles | int | None) -> Tiles | None:
    """Tiles of this size; raises a ConfigError where it is no size."""
    return tiles if tiles is None or isinstance(tiles, Tiles) else Tiles(tiles)


def through_tiles(stream: Stream, tiles: Tiles) -> Stream:
    """The same loop over images, which looks at the tiles of each.

    Captions are of the merged boxes, in a second look at the whole image.
    """

    def tiled(
        items: Iterator[tuple[Source, Ask]],
        request: Request,
        batch_size: int,
        return_errors: bool,
    ) -> Iterator[Results | DataError]:
        for source, asked in items:
            try:
                yield _look(stream, tiles, (source, asked), request, batch_size)
            except DataError as error:
                if not return_errors:
                    raise
                yield error

    return tiled


def _look(
    stream: Stream, tiles: Tiles, item: tuple[Source, Ask], request: Request, batch_size: int
) -> Results:
    source, asked = item
    pixels = source if isinstance(source, np.ndarray) else np.asarray(read_picture(source))
    height, width = pixels.shape[:2]
    windows = tiles.windows(width, height)
    if len(windows) == 1 or asked.boxes is not None:
        return _only(stream(iter([item]), request, 1, False))
    if tiles.whole:
        windows = np.concatenate([windows, [[0, 0, width, height]]])
    views = ((pixels[y1:y2, x1:x2], asked) for x1, y1, x2, y2 in windows.tolist())
    plain = replace(request, captions=frozenset())
    found = [_checked(view) for view in stream(views, plain, batch_size, False)]
    merged = merge_views(found, windows, Picture(source, width, height))
    if request.nms is not None and merged.scores is not None:
        merged = merged.select(nms(merged.boxes, merged.scores, request.nms))
    if not request.captions:
        return merged
    told = _only(stream(iter([(source, Ask(asked.question, merged.boxes))]), request, 1, False))
    return replace(merged, captions=told.captions, description=told.description)


def _only(results: Iterator[Results | DataError]) -> Results:
    return _checked(next(results))


def _checked(result: Results | DataError) -> Results:
    if isinstance(result, DataError):
        raise result
    return result


def merge_views(found: list[Results], windows: np.ndarray, picture: Picture) -> Results:
    """The detections of tiles as those of their image.

    Args:
        found: of V views, in pixels of each.
        windows: [V, 4] int64 xyxy, where the views lie in the image.
        picture: the image.

    Returns:
        Each object once, best first, in pixels of the image.
    """
    counts = [len(results) for results in found]
    view = np.repeat(np.arange(len(found)), counts)
    offsets = np.tile(windows[:, :2], 2).astype(np.float32)
    boxes = np.concatenate([results.boxes for results in found]) + offsets[view]
    scores = np.concatenate([results.scores for results in found if results.scores is not None])
    labels = np.concatenate([results.labels for results in found])
    names = [name for results in found for name in results.names]
    kept = np.zeros(len(boxes), dtype=bool)
    frame = np.array([0, 0, picture.width, picture.height], dtype=np.float32)
    pieces = _Pieces(boxes, scores, windows[view].astype(np.float32), view, frame)
    for label in np.unique(labels):
        for first, box in pieces.objects(np.flatnonzero(labels == label)):
            boxes[first], kept[first] = box, True
    best = max((r.best_score for r in found if r.best_score is not None), default=None)
    everything = Results(picture, boxes, scores, labels, names, found[0].classes, best_score=best)
    order = np.flatnonzero(kept)
    return everything.select(order[np.argsort(-scores[order], kind="stable")])


@dataclass(frozen=True)
class _Pieces:
    """N boxes of several views, in pixels of the image."""

    boxes: np.ndarray  # [N, 4] float32 xyxy
    scores: np.ndarray  # [N] float32
    windows: np.ndarray  # [N, 4] float32 xyxy, of the view that each was found in
    view: np.ndarray  # [N] int64
    frame: np.ndarray  # [4] float32 xyxy, of the image

    def objects(self, positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each object among boxes of one label: the position of its best box, and its box [4]."""
        left = positions[np.argsort(-self.scores[positions], kind="stable")]
        cut = self._cut(left)
        whole, parts = left[~cut], left[cut]
        while len(whole):
            first, whole = int(whole[0]), whole[1:]
            other = self.view[whole] != self.view[first]
            whole = whole[~(other & (self._overlap(first, whole) > _SAME_OBJECT))]
            parts = parts[~self._covers(first, parts)]
            yield first, self.boxes[first]
        while len(parts):
            joined, parts = self._joined(parts)
            corners = self.boxes[joined]
            yield int(joined[0]), np.r_[corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)]

    def _cut(self, positions: np.ndarray) -> np.ndarray:
        """[n] bool: boxes that end at a border of their view inside the image."""
        windows, boxes = self.windows[positions], self.boxes[positions]
        sides = np.tile(windows[:, 2:] - windows[:, :2], 2)
        near = np.maximum(_NEAR_BORDER[0], _NEAR_BORDER[1] * sides)
        inner = windows != self.frame
        return (inner & (np.abs(boxes - windows) <= near)).any(axis=1)

    def _joined(self, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first part with all that belong to it, directly or by others; and the rest."""
        joined, ahead, rest = [], [int(parts[0])], parts[1:]
        while ahead:
            part = ahead.pop()
            joined.append(part)
            same = self._same(part, rest)
            ahead.extend(rest[same].tolist())
            rest = rest[~same]
        return np.array(joined), rest

    def _same(self, first: int, others: np.ndarray) -> np.ndarray:
        """[n] bool: boxes that agree with the first in what the views of both show."""
        shared = _intersect(self.windows[others], self.windows[first])
        mine = _intersect(shared, self.boxes[first])
        theirs = _intersect(shared, self.boxes[others])
        overlaps = _iou(mine, theirs) > _SAME_OBJECT
        return overlaps & (self.view[others] != self.view[first])

    def _covers(self, first: int, parts: np.ndarray) -> np.ndarray:
        """[n] bool: cut boxes that lie on a complete one, by most of their area.

        What a tile shows of an object may be much smaller than that of its box, as the tip of a
        triangle is.
        """
        parts_boxes = self.boxes[parts]
        common = _area(_intersect(parts_boxes, self.boxes[first]))
        covered = common > _COVERED * _area(parts_boxes)
        return covered & (self.view[parts] != self.view[first])

    def _overlap(self, first: int, others: np.ndarray) -> np.ndarray:
        return _iou(self.boxes[first], self.boxes[others])


def _intersect(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What boxes [..., 4] xyxy have in common; turned inside out where nothing is."""
    return np.concatenate(
        [np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1
    )


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).clip(0).astype(np.float64).prod(axis=-1)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    common = _area(_intersect(a, b))
    return common / np.maximum(_area(a) + _area(b) - common, np.finfo(np.float64).tiny)
