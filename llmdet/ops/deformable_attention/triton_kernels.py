"""Deformable attention as one Triton kernel forward and one backward.

A program handles a block of queries of one head of one image, all channels of a head at once, so
that each corner of a bilinear sample is one contiguous row. Locations, coefficients and sums are
float32 whatever the values are. Nothing here waits for the device.

With ``TRITON_INTERPRET=1`` in the environment before this module is imported, the kernels run on
the CPU, slowly, for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Queries from which a call counts as an encoder's; configurations are tuned once for each side.
MANY_QUERIES = 4096
_NOT_SPECIALIZED = ["queries", "pixels", "many"]
_CONFIGS = [
    triton.Config({"BLOCK_QUERIES": queries}, num_warps=warps)
    for queries, warps in ((16, 2), (32, 4), (64, 4), (64, 8))
]
_FIXED_CONFIG: dict[str, Any] = {"BLOCK_QUERIES": 32, "num_warps": 4}
_TUNED_FOR = ["LEVELS", "POINTS", "HEAD_DIMS", "HEADS", "many"]


@triton.jit
def _rows_of_block(queries, HEADS: tl.constexpr, BLOCK_QUERIES: tl.constexpr):
    """(image, head, rows [BLOCK] of (image, query, head), which of them exist) of this program."""
    # Heads change fastest: programs that run together share lines of all inputs.
    head = tl.program_id(0) % HEADS
    query = (tl.program_id(0) // HEADS) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    image = tl.program_id(1).to(tl.int64)
    return image, head, (image * queries + query) * HEADS + head, query < queries


@triton.jit
def _corners(locations, sample, live, start, width, height, dims_exist, STRIDE: tl.constexpr):
    """Four neighbours of the places of samples [BLOCK] on one level.

    Returns the offset of the upper left one in the image's values, the step to the line below,
    the shares of right and lower ones, and which channels to read of upper left, upper right,
    lower left and lower right ones [BLOCK, C / heads].
    """
    x = tl.load(locations + 2 * sample, mask=live, other=-1.0) * width - 0.5
    y = tl.load(locations + 2 * sample + 1, mask=live, other=-1.0) * height - 0.5
    # Far away and not-a-number locations read nothing; float to int is undefined for them.
    live = live & (x > -1) & (y > -1) & (x < width) & (y < height)
    x = tl.where(live, x, 0.0)
    y = tl.where(live, y, 0.0)
    left = tl.floor(x)
    top = tl.floor(y)
    pixel = start + top.to(tl.int32) * width + left.to(tl.int32)
    upper = (live & (top >= 0))[:, None] & dims_exist
    lower = (live & (top + 1 < height))[:, None] & dims_exist
    has_left = (left >= 0)[:, None]
    has_right = (left + 1 < width)[:, None]
    masks = (upper & has_left, upper & has_right, lower & has_left, lower & has_right)
    return pixel.to(tl.int64) * STRIDE, width.to(tl.int64) * STRIDE, x - left, y - top, masks


@triton.jit
def _read(pointers, mask):
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.autotune(_CONFIGS, key=_TUNED_FOR)
@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _forward_kernel(
    value,
    sizes,
    locations,
    weights,
    out,
    queries,
    pixels,
    many,  # only for the key by which configurations are remembered
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIMS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    STRIDE: tl.constexpr = HEADS * HEAD_DIMS
    image, head, rows, live = _rows_of_block(queries, HEADS, BLOCK_QUERIES)
    dims = tl.arange(0, BLOCK_DIMS)[None, :]
    dims_exist = dims < HEAD_DIMS
    values = value + image * pixels * STRIDE + head * HEAD_DIMS + dims
    total = tl.zeros([BLOCK_QUERIES, BLOCK_DIMS], tl.float32)
    start = 0
    for level in tl.static_range(LEVELS):
        height = tl.cast(sizes[2 * level], tl.int32)
        width = tl.cast(sizes[2 * level + 1], tl.int32)
        for point in tl.range(0, POINTS, loop_unroll_factor=2):
            sample = rows * (LEVELS * POINTS) + (level * POINTS + point)
            weight = tl.load(weights + sample, mask=live, other=0.0)
            corner, below, right, lower, exists = _corners(
                locations, sample, live, start, width, height, dims_exist, STRIDE
            )
            here = values + corner[:, None]
            down = here + below
            upper = weight * (1 - lower)
            lower = weight * lower
            total += (upper * (1 - right))[:, None] * _read(here, exists[0])
            total += (upper * right)[:, None] * _read(here + STRIDE, exists[1])
            total += (lower * (1 - right))[:, None] * _read(down, exists[2])
            total += (lower * right)[:, None] * _read(down + STRIDE, exists[3])
        start += height * width
    tl.store(
        out + rows[:, None] * HEAD_DIMS + dims,
        total.to(out.dtype.element_ty),
        mask=live[:, None] & dims_exist,
    )


@triton.jit
def _add(pointers, mask, share, gradient, factor):
    """Add ``share * gradient`` to rows of the values' gradient."""
    addend = share[:, None] * gradient
    if pointers.dtype.element_ty == tl.int64:
        # Integers can be added in any order with the same result.
        addend = (addend * factor).to(tl.int64)
    tl.atomic_add(pointers, addend, mask=mask, sem="relaxed")


@triton.autotune(_CONFIGS, key=_TUNED_FOR, reset_to_zero=["grad_value"])
@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _backward_kernel(
    value,
    sizes,
    locations,
    weights,
    grad_out,
    grad_value,
    grad_locations,
    grad_weights,
    scale,
    queries,
    pixels,
    many,  # only for the key by which configurations are remembered
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIMS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    STRIDE: tl.constexpr = HEADS * HEAD_DIMS
    image, head, rows, live = _rows_of_block(queries, HEADS, BLOCK_QUERIES)
    dims = tl.arange(0, BLOCK_DIMS)[None, :]
    dims_exist = dims < HEAD_DIMS
    first = image * pixels * STRIDE + head * HEAD_DIMS + dims
    gradient = tl.load(
        grad_out + rows[:, None] * HEAD_DIMS + dims, mask=live[:, None] & dims_exist, other=0.0
    ).to(tl.float32)
    factor = tl.load(scale) if grad_value.dtype.element_ty == tl.int64 else 1.0
    # Gradients of a level's points are gathered in tiles shaped as the channels are, where Triton
    # need not move them between threads, and stored together.
    slots = tl.arange(0, BLOCK_SLOTS)[None, :]
    start = 0
    for level in tl.static_range(LEVELS):
        of_weights = tl.zeros([BLOCK_QUERIES, BLOCK_SLOTS], tl.float32)
        of_locations = tl.zeros([BLOCK_QUERIES, BLOCK_SLOTS], tl.float32)
        height = tl.cast(sizes[2 * level], tl.int32)
        width = tl.cast(sizes[2 * level + 1], tl.int32)
        for point in range(POINTS):
            sample = rows * (LEVELS * POINTS) + (level * POINTS + point)
            weight = tl.load(weights + sample, mask=live, other=0.0)
            corner, below, right, lower, exists = _corners(
                locations, sample, live, start, width, height, dims_exist, STRIDE
            )
            here = first + corner[:, None]
            down = here + below
            # What the output's gradient says of each corner: [BLOCK] dot products over channels.
            upper_left = tl.sum(gradient * _read(value + here, exists[0]), 1)
            upper_right = tl.sum(gradient * _read(value + here + STRIDE, exists[1]), 1)
            lower_left = tl.sum(gradient * _read(value + down, exists[2]), 1)
            lower_right = tl.sum(gradient * _read(value + down + STRIDE, exists[3]), 1)
            upper = upper_left + right * (upper_right - upper_left)
            along_y = lower_left + right * (lower_right - lower_left) - upper
            along_x = upper_right - upper_left
            along_x += lower * (lower_right - lower_left - along_x)
            of_weights = tl.where(slots == point, (upper + lower * along_y)[:, None], of_weights)
            along_x = (weight * along_x * width)[:, None]
            along_y = (weight * along_y * height)[:, None]
            of_locations = tl.where(slots == 2 * point, along_x, of_locations)
            of_locations = tl.where(slots == 2 * point + 1, along_y, of_locations)

            upper = weight * (1 - lower)
            lower = weight * lower
            _add(grad_value + here, exists[0], upper * (1 - right), gradient, factor)
            _add(grad_value + here + STRIDE, exists[1], upper * right, gradient, factor)
            _add(grad_value + down, exists[2], lower * (1 - right), gradient, factor)
            _add(grad_value + down + STRIDE, exists[3], lower * right, gradient, factor)
        first_sample = rows[:, None] * (LEVELS * POINTS) + level * POINTS
        mask = live[:, None] & (slots < POINTS)
        tl.store(grad_weights + first_sample + slots, of_weights, mask=mask)
        mask = live[:, None] & (slots < 2 * POINTS)
        tl.store(grad_locations + 2 * first_sample + slots, of_locations, mask=mask)
        start += height * width


def forward(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """Sample and sum; contiguous arguments, all on one device.

    Args:
        value: [B, S, heads, C / heads] float32, bfloat16 or float16.
        sizes: height and width of each level, one after the other.
        locations: [B, Q, heads, levels, P, 2] float32.
        weights: [B, Q, heads, levels, P] float32.

    Returns:
        [B, Q, C] of ``value``'s dtype.
    """
    batch, _, heads, head_dims = value.shape
    out = value.new_empty(batch, locations.shape[1], heads * head_dims)
    _launch(_forward_kernel, (value, _as_floats(sizes), locations, weights, out))
    return out


def backward(
    value: Tensor,
    sizes: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    grad_out: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for value (its dtype), locations and weights (float32).

    Args:
        deterministic: sum the gradient for the values as 64-bit integers, which gives the same
            bits in whatever order the device adds, and leave the block size untuned. It takes
            12 bytes a value for a moment instead of 4, and twice the traffic of the additions.
            With N samples a head (queries x levels x points) the step is at most N / 2 ** 61 of
            the largest possible addend: finer than sums in float32.
    """
    if not locations.numel():
        return torch.zeros_like(value), torch.zeros_like(locations), torch.zeros_like(weights)
    grad_value = torch.zeros(
        value.shape, dtype=torch.int64 if deterministic else torch.float32, device=value.device
    )
    grad_locations, grad_weights = torch.empty_like(locations), torch.empty_like(weights)
    scale = _fixed_point_scale(grad_out, weights) if deterministic else grad_weights
    tensors = (value, _as_floats(sizes), locations, weights, grad_out)
    gradients = (grad_value, grad_locations, grad_weights)
    slots = max(triton.next_power_of_2(n) for n in (value.shape[3], 2 * locations.shape[4]))
    tuned = not deterministic
    _launch(_backward_kernel, (*tensors, *gradients, scale), tuned, BLOCK_SLOTS=slots)
    if deterministic:
        grad_value = grad_value.float().mul_(1 / scale)
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _as_floats(sizes: Sequence[int]) -> tuple[float, ...]:
    # Triton compiles anew for integers that are 1 or divisible by 16, not for floats: images of
    # all sizes share one kernel. Whole numbers below 2 ** 24 are exact.
    return tuple(float(size) for size in sizes)


def _fixed_point_scale(grad_out: Tensor, weights: Tensor) -> Tensor:
    """[1] float32 power of two by which no sum of addends leaves 63 bits; stays on the device."""
    samples = weights[0, :, 0].numel()  # of one head; each adds at most once to a pixel
    largest = grad_out.abs().amax().float() * weights.abs().amax() * samples
    # NaN and infinity reach every gradient, as they should.
    exponent = 62 - torch.log2(largest.clamp(min=2.0**-60)).ceil()
    return torch.exp2(exponent).reshape(1)


def _launch(kernel: Any, arguments: tuple[Any, ...], tuned: bool = True, **constants: Any) -> None:
    """Run a kernel; the first arguments are value, sizes, locations and weights."""
    value, locations = arguments[0], arguments[2]
    batch, pixels, heads, head_dims = value.shape
    _, queries, _, levels, points, _ = locations.shape
    if not locations.numel():
        return  # A grid without programs is an error.
    constants |= {
        "LEVELS": levels,
        "POINTS": points,
        "HEADS": heads,
        "HEAD_DIMS": head_dims,
        "BLOCK_DIMS": triton.next_power_of_2(head_dims),
    }
    scalars = (queries, pixels, int(queries >= MANY_QUERIES))
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device(value.device) if value.is_cuda else nullcontext():
        if value.is_cuda and tuned:
            kernel[lambda chosen: _grid(queries, heads, batch, chosen)](
                *arguments, *scalars, **constants
            )
            return
        constants |= _FIXED_CONFIG
        kernel.fn[_grid(queries, heads, batch, constants)](*arguments, *scalars, **constants)


def _grid(queries: int, heads: int, batch: int, chosen: dict[str, Any]) -> tuple[int, int]:
    return triton.cdiv(queries, chosen["BLOCK_QUERIES"]) * heads, batch
