"""What frozen towers see of images, kept: it is the same in every step of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmdet.datasets.pictures import read_picture
from llmdet.datasets.views import ImageView, make_view
from llmdet.models.vision.detector_memory import DetectorOutput
from llmdet.models.vision.views import Frame, TowerOutput, View, collate_views

_QUERIES = ("queries", "query_boxes", "query_scores")


def look_at_files(
    tower: Any, folder: Path, files: Sequence[str], levels: int = 1
) -> dict[str, TowerOutput]:
    """What a tower makes of each image, by file name.

    Args:
        tower: frozen.
        folder: of the files.
        files: their names in it.
        levels: as in :func:`look_once`.

    Raises:
        DataError: a file is no picture.
    """
    pictures = [np.asarray(read_picture(folder / file))[..., ::-1] for file in files]
    views = [make_view(picture, tower.view) for picture in pictures]
    return dict(zip(files, look_once(tower, views, levels), strict=True))


@torch.no_grad()
def look_once(
    tower: Any, views: Sequence[ImageView], levels: int = 1, batch_size: int = 16
) -> Iterator[TowerOutput]:
    """What a tower makes of each image, by itself; together again by :func:`join`.

    Args:
        tower: frozen.
        views: of images, all made with the tower's settings.
        levels: how many of the finest maps are kept; tokens and a detector's encoder output
            are not.
        batch_size: images at once.
    """
    height, width = tower.view.size
    for start in range(0, len(views), batch_size):
        view = collate_views(views[start : start + batch_size])
        missing = width - view.pixels.shape[3], height - view.pixels.shape[2]
        pixels = F.pad(view.pixels, (0, missing[0], 0, missing[1]))
        seen = tower(View(pixels, replace(view.frame, size=(height, width))))
        for number in range(len(pixels)):
            yield _one(seen, slice(number, number + 1), levels)


def _one(seen: TowerOutput, part: slice, levels: int) -> TowerOutput:
    frame = seen.frame
    changes: dict[str, Any] = {
        "tokens": seen.tokens[part, :0].clone(),  # a view would keep those of its whole batch
        "maps": tuple(each[part].clone() for each in seen.maps[:levels]),
        "valid_ratios": seen.valid_ratios[part, :levels],
        "frame": Frame(
            frame.scale[part],
            frame.offset[part],
            frame.valid_sizes[part],
            frame.original_sizes[part],
            frame.size,
            None if frame.corner is None else frame.corner[part],
        ),
    }
    if isinstance(seen, DetectorOutput):
        changes |= {"encoded": None}
        changes |= {name: _cut(getattr(seen, name), part) for name in _QUERIES}
    return replace(seen, **changes)


def _cut(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part].clone()


def join(outputs: Sequence[TowerOutput]) -> TowerOutput:
    """What a tower made of several images, as if it had seen them together."""
    first, frames = outputs[0], [each.frame for each in outputs]
    corners = [frame.corner for frame in frames if frame.corner is not None]
    changes: dict[str, Any] = {
        "tokens": torch.cat([each.tokens for each in outputs]),
        "maps": tuple(map(torch.cat, zip(*(each.maps for each in outputs), strict=True))),
        "valid_ratios": torch.cat([each.valid_ratios for each in outputs]),
        "frame": Frame(
            torch.cat([frame.scale for frame in frames]),
            torch.cat([frame.offset for frame in frames]),
            tuple(size for frame in frames for size in frame.valid_sizes),
            tuple(size for frame in frames for size in frame.original_sizes),
            frames[0].size,
            torch.cat(corners) if corners else None,
        ),
    }
    for name in _QUERIES:
        if getattr(first, name, None) is not None:
            changes[name] = torch.cat([getattr(each, name) for each in outputs])
    return replace(first, **changes)
