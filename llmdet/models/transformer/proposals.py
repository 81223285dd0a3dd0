"""Two-stage selection: every pixel proposes a box, the likeliest become queries (2010.04159)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llmdet.errors import DataError
from llmdet.models.structures import EncoderOutput, FeaturePyramid, QueryProposals, TextFeatures
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


def select_queries(
    encoded: EncoderOutput,
    read: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor, TextFeatures], Tensor],
    regress: Callable[[Tensor], Tensor],
    num_queries: int,
    *,
    choose_padding: bool = False,
    indices: Tensor | None = None,
) -> QueryProposals:
    """Choose the Q pixels whose features are nearest to any text token.

    Args:
        encoded: memory of image and text.
        read: features of pixels from memory, [B, S, C] to [B, S, C].
        classify: logits [B, S, L] of features and text.
        regress: box deltas [B, Q, 4] of features, before the sigmoid.
        num_queries: Q.
        choose_padding: padded pixels may be chosen too.
        indices: [B, Q] int64, pixels that are taken instead of choosing.

    Raises:
        DataError: the image has fewer than Q pixels on all levels together.
    """
    _check_pixels(encoded.memory.shape[1], num_queries)
    anchors, usable = pixel_proposals(encoded.pyramid)
    memory = read(encoded.memory.masked_fill(~usable[..., None], 0.0))
    logits = classify(memory, encoded.text)  # [B, S, L]
    if indices is None:
        likelihood = logits.amax(-1)
        padding = encoded.pyramid.padding_mask
        if padding is not None and not choose_padding:
            likelihood = likelihood.masked_fill(padding, float("-inf"))
        indices = likelihood.topk(num_queries, dim=1).indices
    # The box map runs on the chosen pixels only.
    deltas = regress(_at(memory, indices))
    return QueryProposals(
        logits=_at(logits, indices),
        boxes=(deltas + _at(anchors, indices)).sigmoid(),  # float32 or wider, as the anchors
        indices=indices,
    )


def _at(values: Tensor, indices: Tensor) -> Tensor:
    """Rows [B, Q, n] of values [B, S, n]."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def _check_pixels(pixels: int, num_queries: int) -> None:
    if pixels < num_queries:
        raise DataError(
            f"an image of {pixels} feature pixels cannot give num_queries={num_queries}; "
            "scale images up in the pipeline or lower model.num_queries"
        )
