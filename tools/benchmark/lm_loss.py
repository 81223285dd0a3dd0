"""Time and peak memory of the caption loss: logits at supervised positions against all positions.

    python tools/benchmark/lm_loss.py                                # sizes of the image captions
    python tools/benchmark/lm_loss.py --batch 32 --tokens 40 --supervised 12    # of the regions

Each way runs in a process of its own, forward and backward, with a frozen vocabulary map. "all"
projects every position, as a language model's own loss does; "supervised" is ours; "fused" is ours
with liger-kernel, where CUDA and the package are there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/lm_loss.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

WAYS = ("all", "supervised", "fused")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    args = parse_args(argv)
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"{args.batch} x {args.tokens} tokens, {args.supervised} supervised each, width "
        f"{args.width}, vocabulary {args.vocabulary}, {args.dtype} on {device}, "
        f"torch {torch.__version__}"
    )
    print(f"{'way':>12} {'ms':>10} {'peak MiB':>10} {'loss':>12}")
    for way in WAYS:
        if way == "fused" and not _has_fused(device):
            print(f"{way:>12} {'-':>10} {'-':>10} {'no CUDA or no liger-kernel':>28}")
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (way, device, vars(args)))
        print(f"{way:>12} {result['ms']:10.1f} {result['mib']:10.0f} {result['loss']:12.6f}")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2, help="conversations (default 2)")
    parser.add_argument("--tokens", type=int, default=1300, help="tokens of each (default 1300)")
    parser.add_argument("--supervised", type=int, default=160, help="of these (default 160)")
    parser.add_argument("--width", type=int, default=896, help="hidden size (default 896)")
    parser.add_argument("--vocabulary", type=int, default=151936, help="default 151936")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs, the best counts")
    return parser.parse_args(argv)


def measure(way: str, device: str, sizes: dict[str, Any]) -> dict[str, float]:
    """Best time of forward and backward in ms, memory above the inputs in MiB, and the loss."""
    import torch

    import llmdet.models.language.losses  # noqa: F401  not to be counted below

    torch.manual_seed(0)
    dtype = getattr(torch, sizes["dtype"])
    shape = (sizes["batch"], sizes["tokens"], sizes["width"])
    hidden = torch.randn(shape, device=device, dtype=dtype).requires_grad_()
    head = torch.nn.Linear(sizes["width"], sizes["vocabulary"], bias=False).to(device, dtype)
    head.requires_grad_(False)
    labels = torch.full(shape[:2], -100)
    labels[:, -sizes["supervised"] :] = torch.randint(sizes["vocabulary"], (1,))
    row, column = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    index = (row * shape[1] + column).to(device)
    targets = labels[:, 1:][row, column].to(device)
    labels = labels.to(device)

    before = _memory(device)
    times, loss = [], None
    for _ in range(sizes["repeat"]):
        hidden.grad = None
        start = time.perf_counter()
        loss = _loss(way, hidden, labels, index, targets, head)
        loss.backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    assert loss is not None
    mib = (_peak(device) - before) / 2**20
    return {"ms": 1000 * min(times), "mib": mib, "loss": float(loss.detach())}


def _loss(way: str, hidden: Any, labels: Any, index: Any, targets: Any, head: Any) -> Any:
    import torch.nn.functional as F

    from llmdet.models.language import losses

    if way == "all":
        logits = head(hidden)[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    if way == "supervised":
        losses._fused_function = lambda: None
    return losses.supervised_cross_entropy(hidden, index, targets, head)


def _has_fused(device: str) -> bool:
    import importlib.util

    return device.startswith("cuda") and importlib.util.find_spec("liger_kernel") is not None


def _memory(device: str) -> int:
    """Bytes in use now; on the CPU the highest resident size so far."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return _peak(device)


def _peak(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    run_cli(main)
