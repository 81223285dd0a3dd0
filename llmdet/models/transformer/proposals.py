"""Two-stage selection: every pixel proposes a box, the likeliest become queries (2010.04159)."""

from __future__ import annotations

import torch
from torch import Tensor

from llmdet.errors import DataError
from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.pyramid import pixel_centres
from llmdet.ops.precision import float32_island

#: Side of the box that a pixel of the finest level proposes, in parts of the image; doubles
#: with each level.
BASE_SIZE = 0.05


@float32_island
def _unactivated(centres: Tensor, sizes: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    boxes = torch.cat([centres, sizes], -1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
    if padding is not None:
        usable = usable & ~padding
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~usable[..., None], float("inf")), usable


def pixel_proposals(pyramid: FeaturePyramid) -> tuple[Tensor, Tensor]:
    """The box that each pixel proposes before its feature is read.

    Returns:
        [B, S, 4] inverse sigmoid of cxcywh, infinite where the box leaves the image or the
        pixel is padding; and [B, S] bool, True where it is finite.
    """
    centres = pixel_centres(pyramid)
    sizes = torch.cat(
        [
            torch.full((h * w, 2), BASE_SIZE * 2.0**level, device=centres.device)
            for level, (h, w) in enumerate(pyramid.shapes)
        ]
    )
    return _unactivated(centres, sizes.expand_as(centres), pyramid.padding_mask)


def check_pixels(pixels: int, num_queries: int) -> None:
    """Refuse an image of fewer pixels, on all levels together, than there are queries to choose.

    Raises:
        DataError: it is so small.
    """
    if pixels < num_queries:
        raise DataError(
            f"an image of {pixels} feature pixels cannot give num_queries={num_queries}; "
            "scale images up in the pipeline or lower model.num_queries"
        )
