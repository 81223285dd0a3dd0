"""Deformable attention against a literal reading of its definition."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmdet.models.transformer.attention import sampling_locations
from llmdet.ops.deformable_attention import deformable_attention
from llmdet.ops.deformable_attention.reference import sample_with_grid_sample

SHAPES = [(4, 6), (2, 3)]
B, Q, HEADS, DIMS, P = 2, 5, 2, 3, 4


def inputs(dtype=torch.float64):
    pixels = sum(h * w for h, w in SHAPES)
    value = torch.randn(B, pixels, HEADS, DIMS, dtype=dtype)
    # Some places lie outside the maps.
    locations = torch.rand(B, Q, HEADS, len(SHAPES), P, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(B, Q, HEADS, len(SHAPES), P, dtype=dtype)
    return value, locations, weights


def by_definition(value, locations, weights):
    out = torch.zeros(B, Q, HEADS, DIMS, dtype=value.dtype)
    start = 0
    for level, (height, width) in enumerate(SHAPES):
        maps = value[:, start : start + height * width].view(B, height, width, HEADS, DIMS)
        start += height * width
        for b, q, h, p in torch.cartesian_prod(*map(torch.arange, (B, Q, HEADS, P))).tolist():
            x = float(locations[b, q, h, level, p, 0]) * width - 0.5
            y = float(locations[b, q, h, level, p, 1]) * height - 0.5
            left, top = int(x // 1), int(y // 1)
            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    out[b, q, h] += weights[b, q, h, level, p] * share * maps[b, row, column, h]
    return out.flatten(2)


def test_samples_are_bilinear_and_zero_outside_the_maps():
    value, locations, weights = inputs()
    torch.testing.assert_close(
        deformable_attention(value, SHAPES, locations, weights),
        by_definition(value, locations, weights),
    )


def test_gradients_are_those_of_finite_differences():
    value, locations, weights = (x.requires_grad_() for x in inputs())
    assert torch.autograd.gradcheck(
        lambda v, x, w: deformable_attention(v, SHAPES, x, w), (value, locations, weights)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_are_summed_in_float32(dtype):
    value, locations, weights = inputs(torch.float32)
    value = value.to(dtype)
    out = deformable_attention(value, SHAPES, locations, weights)
    exact = deformable_attention(value.float(), SHAPES, locations, weights)
    assert out.dtype == dtype
    assert torch.equal(out, exact.to(dtype))


def test_locations_keep_float32_under_autocast():
    # At bf16 a place near the right edge of a wide map has 8 bits: steps of several pixels.
    references = torch.full((1, 1, 1, 2), 0.9)
    offsets = torch.full((1, 1, 1, 1, 1, 2), 0.25, dtype=torch.bfloat16)
    shapes = torch.tensor([[800, 1333]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        places = sampling_locations(references, offsets, shapes)
    assert places.dtype == torch.float32
    expected = torch.tensor([0.9 + 0.25 / 1333, 0.9 + 0.25 / 800])
    torch.testing.assert_close(places.flatten(), expected, rtol=0, atol=1e-7)


def test_boxes_spread_their_points_over_half_of_themselves():
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).view(1, 1, 1, 4)
    offsets = torch.ones(1, 1, 1, 1, 4, 2)
    places = sampling_locations(boxes, offsets, torch.tensor([[10, 10]]))
    torch.testing.assert_close(places[..., 0, :].flatten(), torch.tensor([0.525, 0.55]))


class LargestTensor(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that an operator makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_the_reference_never_holds_the_samples_of_all_levels():
    shapes, points, queries = [(4, 4)] * 4, 8, 100
    value = torch.randn(1, 64, HEADS, DIMS)
    locations = torch.rand(1, queries, HEADS, 4, points, 2)
    weights = torch.rand(1, queries, HEADS, 4, points)
    with LargestTensor() as largest:
        sample_with_grid_sample(value, shapes, locations, weights)
    one_level = queries * HEADS * points * DIMS
    assert largest.numbers <= one_level


def test_the_reference_keeps_samples_once_for_the_backward_pass():
    shapes, points, queries = [(4, 4)] * 4, 8, 100
    value = torch.randn(1, 64, HEADS, DIMS, requires_grad=True)
    locations = torch.rand(1, queries, HEADS, 4, points, 2, requires_grad=True)
    weights = torch.rand(1, queries, HEADS, 4, points, requires_grad=True)
    storages: dict[int, int] = {}

    def remember(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        sample_with_grid_sample(value, shapes, locations, weights)
    samples = 4 * queries * HEADS * 4 * points * DIMS
    inputs_in_bytes = 4 * (value.numel() + locations.numel() + weights.numel())
    assert sum(storages.values()) <= samples + 2 * inputs_in_bytes
