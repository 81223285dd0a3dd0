"""Deformable attention against a literal reading of its definition, and its choice of ways."""

import logging

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmdet.errors import ConfigError
from llmdet.models.transformer.attention import sampling_locations
from llmdet.ops import deformable_attention as package
from llmdet.ops.deformable_attention import (
    choose_implementation,
    deformable_attention,
    lookup,
    use_implementation,
)
from llmdet.ops.deformable_attention.gather import sample_with_gather
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


@pytest.mark.parametrize("name", ["grid_sample", "embedding_bag", "gather"])
def test_samples_are_bilinear_and_zero_outside_the_maps(name):
    value, locations, weights = inputs(torch.float32)
    with use_implementation(name):
        out = deformable_attention(value, SHAPES, locations, weights)
    expected = by_definition(value.double(), locations.double(), weights.double())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=3e-6)


def test_gradients_are_those_of_finite_differences():
    value, locations, weights = (x.requires_grad_() for x in inputs())
    assert torch.autograd.gradcheck(
        lambda v, x, w: deformable_attention(v, SHAPES, x, w), (value, locations, weights)
    )


@pytest.mark.parametrize("name", ["grid_sample", "embedding_bag", "gather"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_are_summed_in_float32(dtype, name):
    value, locations, weights = inputs(torch.float32)
    value = value.to(dtype)
    with use_implementation(name):
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


def encoder_inputs(shapes=((40, 67), (20, 34), (10, 17), (5, 9)), batch=2, dtype=torch.float32):
    """Queries at every pixel, looking some pixels around themselves, as the encoder's do."""
    centres = []
    for height, width in shapes:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1).flatten(0, 1))
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=torch.float32)
    queries = sum(height * width for height, width in shapes)
    offsets = 3 * torch.randn(batch, queries, 4, len(shapes), 4, 2) / sizes[:, None]
    weights = torch.randn(batch, queries, 4, len(shapes) * 4).softmax(-1)
    return (
        torch.randn(batch, queries, 4, 16, dtype=dtype),
        shapes,
        torch.cat(centres)[:, None, None, None] + offsets,
        weights.unflatten(-1, (len(shapes), 4)),
    )


LOOKUPS = pytest.mark.parametrize("sample", [lookup.sample_with_embedding_bag, sample_with_gather])


def test_lookup_equals_the_reference_at_every_place_of_a_pyramid():
    args = encoder_inputs()
    torch.testing.assert_close(
        lookup.sample_with_embedding_bag(*args), sample_with_grid_sample(*args), rtol=0, atol=3e-6
    )


def test_gathered_samples_equal_the_reference_to_the_rounding_of_places():
    # A place near pixel 64 is rounded to 8e-6 pixels, here and there in other steps.
    args = encoder_inputs()
    torch.testing.assert_close(
        sample_with_gather(*args), sample_with_grid_sample(*args), rtol=0, atol=3e-5
    )
    double = [x.double() if isinstance(x, torch.Tensor) else x for x in args]
    torch.testing.assert_close(
        sample_with_gather(*double), sample_with_grid_sample(*double), rtol=0, atol=1e-12
    )


def test_lookup_gives_the_same_bits_whatever_the_size_of_its_blocks(monkeypatch):
    args = encoder_inputs()
    whole = lookup.sample_with_embedding_bag(*args)
    monkeypatch.setattr(lookup, "_SAMPLES", 7000)  # The last block is not full.
    assert torch.equal(lookup.sample_with_embedding_bag(*args), whole)


@LOOKUPS
def test_lookups_read_maps_of_one_row_column_or_pixel(sample):
    args = encoder_inputs(shapes=((1, 7), (6, 1), (1, 1)))
    torch.testing.assert_close(sample(*args), sample_with_grid_sample(*args), rtol=0, atol=3e-6)


@LOOKUPS
def test_lookups_take_no_queries_and_values_that_are_not_contiguous(sample):
    value, shapes, locations, weights = encoder_inputs()
    assert sample(value, shapes, locations[:, :0], weights[:, :0]).shape == (2, 0, 64)
    apart = torch.stack([value, value], -1)[..., 0]
    expected = sample(value, shapes, locations, weights)
    torch.testing.assert_close(
        sample(apart, shapes, locations, weights), expected, rtol=0, atol=3e-6
    )


@LOOKUPS
def test_lookups_read_nothing_far_away_and_let_nan_show(sample):
    value, shapes, locations, weights = encoder_inputs()
    locations[0, 0], locations[0, 1], locations[0, 2] = 1e30, -torch.inf, torch.inf
    locations[0, 3, 0, 0, 0, 0] = torch.nan
    out = sample(value, shapes, locations, weights)
    assert not out[0, :3].any()
    assert out[0, 3, :16].isnan().all()
    assert not out[0, 3, 16:].isnan().any()
    assert not out[0, 4:].isnan().any()


def test_inference_on_the_cpu_looks_up_and_training_uses_the_reference():
    assert choose_implementation("cpu") == "embedding_bag"
    assert choose_implementation("cpu", torch.bfloat16) == "embedding_bag"
    assert choose_implementation("cpu", wants_gradients=True) == "grid_sample"
    assert choose_implementation("cpu", torch.float64) == "grid_sample"
    assert choose_implementation("cuda", wants_gradients=True) == "triton"
    assert choose_implementation("mps") == "grid_sample"


def test_gradients_flow_where_they_are_wanted_and_only_there():
    value, locations, weights = inputs(torch.float32)
    value.requires_grad_()
    assert deformable_attention(value, SHAPES, locations, weights).requires_grad
    with torch.no_grad():
        assert not deformable_attention(value, SHAPES, locations, weights).requires_grad


def test_which_implementation_runs_is_logged_once(caplog):
    value, locations, weights = inputs(torch.float32)
    package._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="llmdet"):
        for _ in range(3):
            deformable_attention(value, SHAPES, locations, weights)
    assert [record.getMessage() for record in caplog.records] == [
        "Deformable attention on cpu runs through embedding_bag."
    ]


def test_a_requested_implementation_is_taken_or_refused_with_its_reason():
    value, locations, weights = inputs(torch.float32)
    with use_implementation("grid_sample"):
        assert choose_implementation("cpu") == "grid_sample"
    with use_implementation("embedding_bag"), pytest.raises(ConfigError, match="no gradients"):
        deformable_attention(value.requires_grad_(), SHAPES, locations, weights)
    with use_implementation("embedding_bag"), pytest.raises(ConfigError, match="not on cuda"):
        choose_implementation("cuda")
    with use_implementation("triton"), pytest.raises(ConfigError, match="float64"):
        choose_implementation("cuda", torch.float64)
    with use_implementation("triton"), pytest.raises(ConfigError, match="CUDA devices"):
        choose_implementation("cpu")
    with pytest.raises(ConfigError, match="may be one of triton, "), use_implementation("cuda"):
        pass
    assert choose_implementation("cpu") == "embedding_bag"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_hold_it_as_one_operator(backend):
    value, locations, weights = inputs(torch.float32)
    expected = deformable_attention(value, SHAPES, locations, weights)
    operators = []

    def remember(module, examples):
        operators.extend(str(node.target) for node in module.graph.nodes)
        return torch._dynamo.lookup_backend(backend)(module, examples)

    torch._dynamo.reset()
    compiled = torch.compile(deformable_attention, backend=remember, fullgraph=True)
    torch.testing.assert_close(compiled(value, SHAPES, locations, weights), expected)
    assert "llmdet.deformable_attention.default" in operators


def test_training_compiles_without_a_break():
    value, locations, weights = (x.requires_grad_() for x in inputs(torch.float32))
    torch._dynamo.reset()
    compiled = torch.compile(deformable_attention, backend="aot_eager", fullgraph=True)
    ways = [
        torch.autograd.grad(way(value, SHAPES, locations, weights).sin().sum(), value)[0]
        for way in (compiled, deformable_attention)
    ]
    torch.testing.assert_close(*ways)


def test_exported_programs_hold_only_operators_of_torch():
    class Model(torch.nn.Module):
        def forward(self, value, locations, weights):
            return deformable_attention(value, SHAPES, locations, weights)

    args = inputs(torch.float32)
    with torch.no_grad():
        code = torch.export.export(Model(), args).graph_module.print_readable(print_output=False)
        traced = str(torch.jit.trace(Model(), args).inlined_graph)
    for program in (code, traced):
        assert "grid_sampler" not in program
        assert "ops.llmdet" not in program
        assert "llmdet::" not in program


def test_the_operator_keeps_the_rules_of_torch():
    value, locations, weights = inputs(torch.float32)
    sizes = [side for shape in SHAPES for side in shape]
    torch.library.opcheck(
        torch.ops.llmdet.deformable_attention.default,
        (value, sizes, locations, weights, "embedding_bag"),
    )
