"""Deformable attention as weighted sums of table rows, for inference on the CPU.

``grid_sample`` visits channel after channel; here the channels of one pixel and head are one row,
and a query's result is one bag of rows (all levels, points and corners) with bilinear shares
times attention weights as coefficients: :func:`torch.nn.functional.embedding_bag`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Samples handled at a time: their buffers (about 5 MB) stay in a processor's cache.
_SAMPLES = 2**17
_MINUS_HALF = torch.tensor(-0.5, device="cpu", dtype=torch.float32)


def sample_with_embedding_bag(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample and sum without gradients; arguments as in :func:`llmdet.ops.deformable_attention`.

    Values of any floating dtype are read as float32; locations and weights are float32.

    Returns:
        [B, Q, C] of ``value``'s dtype, summed in float32.
    """
    batch, pixels, heads, head_dims = value.shape
    queries, levels, points = locations.shape[1], *locations.shape[3:5]
    samples = heads * levels * points  # of one query
    block = max(1, min(queries, _SAMPLES // samples))
    layout = _layout(tuple(shapes), heads, points, block)
    buffers = _Buffers(block * heads, levels * points)
    out = value.new_empty(batch, queries, heads, head_dims)
    for image in range(batch):
        table = value[image].reshape(pixels * heads, head_dims).float()
        for start in range(0, queries, block):
            stop = min(start + block, queries)
            rows, shares = buffers.fill(
                layout, locations[image, start:stop], weights[image, start:stop], heads
            )
            sums = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
            out[image, start:stop] = sums.view(-1, heads, head_dims)
    return out.flatten(2)


@dataclass(frozen=True)
class _Layout:
    """What of the arithmetic depends on the maps alone, written out for a block of queries.

    Each tensor is flat over (query, head, level, point): n numbers, or for x and y 2 x n.
    """

    halves: Tensor  # [2, n] float32: half the width, height of the sample's map
    last: Tensor  # [2, n] float32: highest left, top neighbour
    reach: Tensor  # [2, n] float32: 1; 0 where the map has no second column, row
    steps: Tensor  # [2, n] int32: table rows to the right, lower neighbour; 0 where none is
    line: Tensor  # [n] int32: table rows of a line of the map
    first: Tensor  # [n] int32: table row of the map's first pixel


@lru_cache(maxsize=8)
def _layout(shapes: tuple[tuple[int, int], ...], heads: int, points: int, block: int) -> _Layout:
    heights, widths = torch.tensor(shapes, dtype=torch.int32, device="cpu").unbind(1)
    starts = (heights * widths).cumsum(0, dtype=torch.int32) - heights * widths
    sizes = torch.stack([widths, heights])  # [2, levels]
    steps = heads * torch.stack([torch.ones_like(widths), widths]) * (sizes > 1)

    per_sample = (block, heads, len(shapes), points)

    def written_out(per_level: Tensor) -> Tensor:  # [k, levels] -> [k, n]
        return per_level[:, None, None, :, None].expand(-1, *per_sample).flatten(1)

    head = torch.arange(heads, dtype=torch.int32, device="cpu")[:, None, None]
    return _Layout(
        halves=written_out(sizes.float() / 2),
        last=written_out((sizes - 2).clamp(min=0).float()),
        reach=written_out((sizes > 1).float()),
        steps=written_out(steps),
        line=written_out(heads * widths[None])[0],
        first=written_out(heads * starts[None])[0] + head.expand(per_sample).flatten(),
    )


class _Buffers:
    """Rows and shares of a block of queries, filled again for each block.

    Args:
        bags: (query, head) pairs of a block.
        samples: (level, point) pairs of each.
    """

    def __init__(self, bags: int, samples: int) -> None:
        self.places, self.near = _empty(2, bags * samples), _empty(2, bags * samples)
        self.corners = _empty(2, bags * samples, dtype=torch.int32)
        # Upper left, upper right, lower left, lower right corners of a bag's samples.
        self.rows = _empty(bags, 4, samples, dtype=torch.int32)
        self.shares = _empty(bags, 4, samples)

    def fill(
        self, layout: _Layout, locations: Tensor, weights: Tensor, heads: int
    ) -> tuple[Tensor, Tensor]:
        """Table rows and coefficients of some queries of one image.

        Args:
            layout: of the maps.
            locations: [q, heads, levels, P, 2].
            weights: [q, heads, levels, P].
            heads: number of heads.

        Returns:
            [q * heads, 4 * levels * P] int32 and float32, views of the buffers.
        """
        n = weights.numel()
        places, near, corners = self.places[:, :n], self.near[:, :n], self.corners[:, :n]
        # In the steps in which grid_sample gets from its grid, 2 * location - 1, to pixels: the
        # same rounding, and so the same pixels.
        places.copy_(locations.reshape(n, 2).t()).mul_(2).sub_(1).add_(1)
        torch.addcmul(_MINUS_HALF, places, layout.halves[:, :n], out=places)
        # Left (top) neighbours are moved to where they and the ones beside them exist; shares of
        # 1 - distance, at least 0, stay right by that, at the borders and anywhere beyond.
        torch.minimum(torch.floor(places, out=near).clamp_(min=0), layout.last[:, :n], out=near)
        corners.copy_(near).clamp_(min=0)  # NaN, which stays NaN in the shares, needs a row too.
        to_near = places.sub_(near)
        far = torch.sub(to_near, 1, out=near).abs_()
        far = torch.sub(layout.reach[:, :n], far, out=far).clamp_(min=0)
        near = to_near.abs_().neg_().add_(1).clamp_(min=0)
        return self._rows(layout, corners, heads), self._shares(near, far, weights)

    def _rows(self, layout: _Layout, corners: Tensor, heads: int) -> Tensor:
        n = corners.shape[1]
        rows = self.rows[: n // self.rows.shape[2]]
        to_right, to_lower = layout.steps[:, :n].view(2, len(rows), -1)
        upper = corners[0].mul_(heads).add_(layout.first[:n])
        upper = upper.addcmul_(corners[1], layout.line[:n]).view(len(rows), -1)
        rows[:, 0] = upper
        torch.add(upper, to_right, out=rows[:, 1])
        lower = upper.add_(to_lower)
        rows[:, 2] = lower
        torch.add(lower, to_right, out=rows[:, 3])
        return rows.flatten(1)

    def _shares(self, near: Tensor, far: Tensor, weights: Tensor) -> Tensor:
        n = weights.numel()
        shares = self.shares[: n // self.shares.shape[2]]
        left, right = (x.view(len(shares), -1) for x in (near[0], far[0]))
        upper = near[1].mul_(weights.reshape(n)).view(len(shares), -1)
        lower = far[1].mul_(weights.reshape(n)).view(len(shares), -1)
        torch.mul(upper, left, out=shares[:, 0])
        torch.mul(upper, right, out=shares[:, 1])
        torch.mul(lower, left, out=shares[:, 2])
        torch.mul(lower, right, out=shares[:, 3])
        return shares.flatten(1)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu")
