"""The Triton kernels against the reference in float64.

Where there is CUDA they run on it. Everywhere else one test runs this file again in a process of
its own, in Triton's interpreter.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from llmdet.ops.deformable_attention import deformable_attention, use_implementation
from llmdet.ops.deformable_attention.reference import sample_with_grid_sample

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs CUDA"
)
SHAPES = [(5, 7), (3, 4), (1, 2)]
# Of values and their gradients, which are rounded once; of all else float32's.
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def inputs(dtype=torch.float32, heads=2, head_dims=16, points=2, queries=19, shapes=SHAPES):
    pixels = sum(height * width for height, width in shapes)
    value = torch.randn(2, pixels, heads, head_dims).to(dtype)
    # A quarter of the places lie outside the maps.
    locations = torch.rand(2, queries, heads, len(shapes), points, 2) * 1.4 - 0.2
    weights = torch.randn(2, queries, heads, len(shapes) * points).softmax(-1)
    weights = weights.unflatten(-1, (len(shapes), points))
    return tuple(x.to(DEVICE).requires_grad_() for x in (value, locations, weights))


def kernels(value, locations, weights, shapes=SHAPES):
    with use_implementation("triton"):
        return deformable_attention(value, shapes, locations, weights)


def results(way, tensors, shapes=SHAPES):
    """Output and the gradients for value, locations, weights, for one fixed loss."""
    value, locations, weights = tensors
    out = way(value, locations, weights)
    loss = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    # The gradient that arrives has the dtype of the output.
    gradients = torch.autograd.grad(out, tensors, loss.to(value.dtype).to(out.dtype))
    return out, *gradients


def assert_equal_to_reference(tensors, shapes=SHAPES):
    found = results(lambda *args: kernels(*args, shapes), tensors)
    dtype = tensors[0].dtype

    def reference(value, locations, weights):
        return sample_with_grid_sample(value, shapes, locations, weights)

    doubles = tuple(x.detach().double().requires_grad_() for x in tensors)
    out = reference(*doubles)
    loss = torch.linspace(-1, 1, out.numel(), device=out.device).to(dtype).double().view_as(out)
    expected = (out, *torch.autograd.grad(out, doubles, loss))
    names = ("output", "value", "locations", "weights")
    for name, ours, exact in zip(names, found, expected, strict=True):
        tolerance = ROUNDING[ours.dtype]
        scale = exact.abs().amax().item()
        torch.testing.assert_close(
            ours.double(), exact, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert found[0].dtype == found[1].dtype == dtype
    assert found[2].dtype == found[3].dtype == torch.float32


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_equal_the_reference(dtype):
    assert_equal_to_reference(inputs(dtype))


@on_device
@pytest.mark.parametrize("head_dims", [24, 32, 64])
def test_head_widths_need_not_be_powers_of_two(head_dims):
    assert_equal_to_reference(inputs(heads=1, head_dims=head_dims, queries=5))


@on_device
@pytest.mark.parametrize(("levels", "points"), [(1, 1), (2, 5), (5, 9)])
def test_any_number_of_levels_and_points(levels, points):
    shapes = [(4 + level, 9 - level) for level in range(levels)]
    assert_equal_to_reference(inputs(points=points, queries=3, shapes=shapes), shapes)


@on_device
def test_far_and_undefined_places_read_nothing():
    value, locations, weights = inputs()
    with torch.no_grad():
        locations[:, 0], locations[:, 1], locations[:, 2] = 1e30, -torch.inf, torch.nan
        locations[:, 3] = 1 + 1 / 7  # one pixel beyond the last of the widest map
    out, *gradients = results(kernels, (value, locations, weights))
    assert not out[:, :3].any()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@on_device
def test_no_queries_give_no_output_and_zero_gradients():
    tensors = inputs(queries=0)
    out, grad_value, *_ = results(kernels, tensors)
    assert out.shape == (2, 0, 32)
    assert not grad_value.any()


@on_device
def test_deterministic_gradients_do_not_depend_on_the_order_of_addition():
    value, locations, weights = inputs(queries=40)
    order = torch.randperm(40, device=DEVICE)
    gradient = torch.randn(2, 40, 32, device=DEVICE)

    def grad_value(order):
        out = kernels(value, locations[:, order], weights[:, order])
        return torch.autograd.grad(out, value, gradient[:, order])[0]

    torch.use_deterministic_algorithms(True)
    try:
        one, other = grad_value(torch.arange(40, device=DEVICE)), grad_value(order)
        assert_equal_to_reference((value, locations, weights))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(one, other)


@on_device
@pytest.mark.parametrize("factor", [0.0, 1e-25, 1e25])
def test_deterministic_gradients_fit_gradients_of_any_size(factor):
    value, locations, weights = inputs()
    gradient = factor * torch.randn(2, 19, 32, device=DEVICE)
    out = sample_with_grid_sample(value, SHAPES, locations, weights)
    (expected,) = torch.autograd.grad(out, value, gradient)
    torch.use_deterministic_algorithms(True)
    try:
        (found,) = torch.autograd.grad(kernels(value, locations, weights), value, gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * factor)


@on_device
def test_deterministic_gradients_let_nan_show():
    value, locations, weights = inputs()
    gradient = torch.full((2, 19, 32), torch.nan, device=DEVICE)
    torch.use_deterministic_algorithms(True)
    try:
        (found,) = torch.autograd.grad(kernels(value, locations, weights), value, gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    assert found.isnan().any()


@on_device
def test_the_operators_keep_the_rules_of_torch():
    tensors = inputs(queries=5)
    sizes = [side for shape in SHAPES for side in shape]
    torch.library.opcheck(
        torch.ops.llmdet.deformable_attention.default,
        (tensors[0], sizes, *tensors[1:], "triton"),
    )
    value, locations, weights = (x.detach() for x in tensors)
    torch.library.opcheck(
        torch.ops.llmdet.deformable_attention_backward.default,
        (value, sizes, locations, weights, torch.randn(2, 5, 32, device=DEVICE), False),
        atol=1e-5,
        rtol=1e-5,
    )


@on_device
def test_compiled_training_runs_the_same_kernels():
    tensors = inputs(queries=5)
    torch._dynamo.reset()
    compiled = torch.compile(deformable_attention, backend="aot_eager", fullgraph=True)
    with use_implementation("triton"):
        found = results(lambda v, x, w: compiled(v, SHAPES, x, w), tensors)
    for ours, expected in zip(found, results(kernels, tensors), strict=True):
        torch.testing.assert_close(ours, expected)


@on_device
def test_autocast_leaves_places_and_weights_in_float32():
    value, locations, weights = inputs()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = kernels(value.bfloat16(), locations, weights)
    exact = sample_with_grid_sample(value.bfloat16(), SHAPES, locations, weights)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=0, atol=2e-2)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_everything_above_in_the_interpreter():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "needs CUDA" not in run.stdout


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("kernel", "sums"),
    [("_forward_kernel", "*fp32"), ("_backward_kernel", "*fp32"), ("_backward_kernel", "*i64")],
)
def test_kernels_compile_for_a_hopper_gpu_that_need_not_be_here(kernel, sums):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from llmdet.ops.deformable_attention import triton_kernels

    function = getattr(triton_kernels, kernel).fn
    types = {
        name: "*bf16" if name in ("value", "out", "grad_out") else "*fp32"
        for name in function.arg_names
    }
    if "grad_value" in types:
        types["grad_value"] = sums  # 64-bit integers where gradients are deterministic
    types |= {"sizes": ("fp32",) * 8, "queries": "i32", "pixels": "i32", "many": "i32"}
    constants = {"LEVELS": 4, "POINTS": 4, "HEADS": 8, "HEAD_DIMS": 32, "BLOCK_DIMS": 32}
    constants |= {"BLOCK_SLOTS": 32, "BLOCK_QUERIES": 32}
    constants = {name: constants[name] for name in function.arg_names if name.isupper()}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(function.arg_names)
        if name not in constants and isinstance(types[name], str) and types[name].startswith("*")
    }
    source = ASTSource(
        function,
        {name: "constexpr" if name in constants else types[name] for name in types},
        {(function.arg_names.index(name),): value for name, value in constants.items()},
        aligned,
    )
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert "ld.global.v4.b32" in ptx  # A corner's channels arrive 16 bytes at a time.
    assert ".f64" not in ptx
    if kernel == "_backward_kernel":
        vectors, integers = "atom.global.gpu.relaxed.add.v4.f32", "atom.global.gpu.relaxed.add.u64"
        assert (vectors in ptx) == (sums == "*fp32")
        assert (integers in ptx) == (sums == "*i64")


class Launches:
    """In a kernel's place: on which device it was started, and with how many programs."""

    def __init__(self, current):
        self.current, self.seen = current, []
        self.fn = self

    def __getitem__(self, grid):
        return lambda *args, **constants: self.seen.append(self.current[-1])


@pytest.mark.skipif(INTERPRETED, reason="is about CUDA")
@pytest.mark.parametrize("tuned", [True, False])
def test_kernels_start_on_the_device_of_their_tensors(monkeypatch, tuned):
    pytest.importorskip("triton")
    from llmdet.ops.deformable_attention import triton_kernels

    current = ["cuda:0"]

    @contextmanager
    def device(name):
        current.append(name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    value = SimpleNamespace(is_cuda=True, device="cuda:1", shape=(1, 6, 2, 16))
    locations = torch.zeros(1, 5, 2, 1, 3, 2)
    kernel = Launches(current)
    triton_kernels._launch(kernel, (value, (2.0, 3.0), locations, None), tuned)
    assert kernel.seen == ["cuda:1"]
