"""Time of multi-scale deformable attention: every implementation of ours, and others'.

    python tools/benchmark/msda.py                          # CUDA where there is one, else the CPU
    python tools/benchmark/msda.py --device cpu --threads 2
    python tools/benchmark/msda.py --device cuda --dtype bfloat16

Shapes are those of Grounding DINO on an image of 800 x 1333: every pixel of four maps asks in the
encoder, 900 queries ask in the decoder. All ways take turns, so that whatever else the machine does
falls on all of them; the fastest run of each counts. GB/s counts every input and output once
(gradients too, where there are any), and is compared with a copy of 256 MiB on the same device.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/msda.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

HEADS, HEAD_DIMS, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)
Way = Callable[[Any], Any]  # takes Inputs, returns [B, Q, C]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=800, help="of the image (default 800)")
    parser.add_argument("--width", type=int, default=1333, help="of the image (default 1333)")
    parser.add_argument("--batch", type=int, default=2, help="images (default 2)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the values; locations and weights are float32",
    )
    parser.add_argument(
        "--passes",
        choices=["forward", "both"],
        help="measure backward passes too (default forward on the CPU, else both)",
    )
    parser.add_argument("--repeat", type=int, help="timed runs (default 3 on the CPU, else 20)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for the encoder's and one for the decoder's shape."""
    args = parse_args(argv)
    import torch
    import transformers

    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    repeat = args.repeat or (3 if device == "cpu" else 20)
    passes = args.passes or ("forward" if device == "cpu" else "both")
    bandwidth = copy_bandwidth(device, repeat)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else processor()
    print(
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, copies at {bandwidth:.1f} GB/s"
    )
    ways, missing = all_ways(device)
    for step in ("encoder", "decoder"):
        inputs = make_inputs(args, device, step)
        print(
            f"\n{step}: {args.batch} x {inputs.locations.shape[1]} queries, {HEADS} heads of "
            f"{HEAD_DIMS}, maps {' '.join(f'{h}x{w}' for h, w in inputs.shapes)}, "
            f"{POINTS} points, values {args.dtype}"
        )
        for training in (False, True)[: 1 + (passes == "both")]:
            print_table(measure(ways, inputs, training, repeat), inputs, training, bandwidth)
    for name, reason in missing.items():
        print(f"\nnot measured: {name} ({reason})")
    return 0


@dataclass(frozen=True)
class Inputs:
    """Arguments of deformable attention, and the gradient that arrives at its output."""

    value: Any  # [B, S, heads, C / heads]
    shapes: tuple[tuple[int, int], ...]  # (height, width) of each level
    locations: Any  # [B, Q, heads, levels, P, 2] in 0..1
    weights: Any  # [B, Q, heads, levels, P]
    gradient: Any  # [B, Q, C]
    spatial_shapes: Any  # [levels, 2], shapes once more, as other implementations want it
    starts: Any  # [levels], first pixel of each level

    @property
    def leaves(self) -> tuple[Any, Any, Any]:
        """The tensors that have gradients."""
        return self.value, self.locations, self.weights


def make_inputs(args: argparse.Namespace, device: str, step: str) -> Inputs:
    """Random values; places some pixels around each pixel, or spread over 900 random boxes."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    shapes = tuple((-(-args.height // s), -(-args.width // s)) for s in STRIDES)
    sizes = torch.tensor(shapes)
    levels, pixels = len(shapes), int(sizes.prod(1).sum())
    if step == "encoder":
        centres = [
            torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(-1)
            for h, w in shapes
        ]
        references, reach = torch.cat(centres), 3 / sizes.flip(-1)[:, None]
    else:
        references = torch.rand(900, 2, generator=generator)
        reach = torch.tensor(0.05)
    queries = len(references)
    offsets = reach * normal(args.batch, queries, HEADS, levels, POINTS, 2)
    weights = normal(args.batch, queries, HEADS, levels * POINTS).softmax(-1)
    dtype = getattr(torch, args.dtype)
    return Inputs(
        value=normal(args.batch, pixels, HEADS, HEAD_DIMS).to(device, dtype).requires_grad_(),
        shapes=shapes,
        locations=(references[:, None, None, None] + offsets).to(device).requires_grad_(),
        weights=weights.unflatten(-1, (levels, POINTS)).contiguous().to(device).requires_grad_(),
        gradient=normal(args.batch, queries, HEADS * HEAD_DIMS).to(device, dtype),
        spatial_shapes=sizes.to(device),
        starts=(sizes.prod(1).cumsum(0) - sizes.prod(1)).to(device),
    )


def all_ways(device: str) -> tuple[dict[str, Way], dict[str, str]]:
    """What can be measured on a device, and why the rest cannot."""
    from llmdet.errors import ConfigError
    from llmdet.ops.deformable_attention import (
        IMPLEMENTATIONS,
        choose_implementation,
        use_implementation,
    )

    ways: dict[str, Way] = {"transformers": transformers_way()}
    missing = {}
    for name in IMPLEMENTATIONS:
        try:
            with use_implementation(name):
                choose_implementation(device)
            ways[f"ours, {name}"] = our_way(name)
        except ConfigError as error:
            missing[f"ours, {name}"] = str(error).split(", ")[2].split(": ")[0]
    for name, find in (("mmcv, compiled", mmcv_way), ("transformers, hub", hub_way)):
        try:
            ways[name] = find(device)
        except (ImportError, OSError) as error:
            missing[name] = str(error).splitlines()[0]
    return ways, missing


def our_way(name: str) -> Way:
    """One of our implementations."""
    from llmdet.ops.deformable_attention import deformable_attention, use_implementation

    def run(x: Inputs) -> Any:
        with use_implementation(name):
            return deformable_attention(x.value, x.shapes, x.locations, x.weights)

    return run


def transformers_way(module: Any = None) -> Way:
    """The module of transformers, or one with its signature."""
    if module is None:
        from transformers.models.deformable_detr import modeling_deformable_detr

        module = modeling_deformable_detr.MultiScaleDeformableAttention()

    def run(x: Inputs) -> Any:
        # It wants values and weights of one dtype.
        weights, locations = x.weights.to(x.value.dtype), x.locations.to(x.value.dtype)
        return module(x.value, x.spatial_shapes, x.shapes, x.starts, locations, weights, 64)

    return run


def mmcv_way(device: str) -> Way:
    """The compiled operator of mmcv, which computes in float32."""
    import mmcv._ext
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    from llmdet.ops.mmcv_finder import is_stand_in

    if not device.startswith("cuda"):
        raise ImportError("runs on CUDA devices")
    if is_stand_in(mmcv._ext):
        raise ImportError("this mmcv was installed without its compiled operators")

    def run(x: Inputs) -> Any:
        return MultiScaleDeformableAttnFunction.apply(
            x.value.float(), x.spatial_shapes, x.starts, x.locations, x.weights, 64
        )

    return run


def hub_way(device: str) -> Way:
    """The kernel that transformers takes from the hub, where the package kernels is installed."""
    if not device.startswith("cuda"):
        raise ImportError("runs on CUDA devices")
    from kernels import get_kernel

    layers = get_kernel("kernels-community/deformable-detr").layers
    return transformers_way(layers.MultiScaleDeformableAttention())


@dataclass(frozen=True)
class Result:
    """What was found of one way."""

    seconds: float
    difference: float  # largest, of the output, from the reference in the values' dtype


def measure(ways: dict[str, Way], inputs: Inputs, training: bool, repeat: int) -> dict[str, Result]:
    """Seconds of the fastest of some runs, after one that is not counted, in turns."""
    import torch

    if training:
        ways = {name: way for name, way in ways.items() if "embedding_bag" not in name}
    exact = our_way("grid_sample")(inputs).detach()
    best = dict.fromkeys(ways, float("inf"))
    differences = {}
    for turn in range(1 + repeat):
        for name, way in ways.items():
            seconds, out = clock(way, inputs, training)
            if turn:
                best[name] = min(best[name], seconds)
            else:
                differences[name] = (out.detach() - exact).abs().max().item()
            del out
            torch.cuda.empty_cache()
    return {name: Result(best[name], differences[name]) for name in ways}


def clock(way: Way, inputs: Inputs, training: bool) -> tuple[float, Any]:
    """Seconds of one run, with its backward pass where ``training``, and the output."""
    import torch

    synchronize(inputs.value.device.type)
    start = time.perf_counter()
    with torch.set_grad_enabled(training):
        out = way(inputs)
    if training:
        torch.autograd.grad(out, inputs.leaves, inputs.gradient.to(out.dtype))
    synchronize(inputs.value.device.type)
    return time.perf_counter() - start, out


def print_table(
    results: dict[str, Result], inputs: Inputs, training: bool, bandwidth: float
) -> None:
    """One row a way."""
    passes = "forward and backward" if training else "forward"
    sizes = [x.numel() * x.element_size() for x in (*inputs.leaves, inputs.gradient)]
    # Backward reads them all again and writes a gradient for each of the first three.
    moved = sum(sizes) + (sum(sizes) + sum(sizes[:3]) if training else 0)
    print(f"{passes:>24} {'ms':>9} {'ratio':>7} {'GB/s':>8} {'of copy':>8} {'difference':>11}")
    reference = results["ours, grid_sample"].seconds
    for name, result in results.items():
        rate = moved / result.seconds / 1e9
        print(
            f"{name:>24} {1000 * result.seconds:9.3f} {reference / result.seconds:6.2f}x "
            f"{rate:8.2f} {100 * rate / bandwidth:7.1f}% {result.difference:11.1e}"
        )


def copy_bandwidth(device: str, repeat: int) -> float:
    """GB/s read and written by a copy of 256 MiB."""
    import torch

    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(1 + repeat):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() / best / 1e9


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def processor() -> str:
    """The model of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    run_cli(main)
