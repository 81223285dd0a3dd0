"""Train the same config in float32, bfloat16 and float16, and compare what the runs come to.

    python -m llmdet.datasets.toy data/toy
    python tools/benchmark/precision.py --iterations 950 --seeds 3
    python tools/benchmark/precision.py CONFIG --iterations N --cfg-options KEY=VALUE ...

Without CONFIG the quickstart's detector learns the toy set. Each precision trains once with each
seed, from scratch, through the schedule of the config fitted to the iterations; what is validated
at the end is printed, the mean over seeds and how far the seeds lie apart. float16 scales its
losses; updates that it left out because a gradient was infinite are counted.
Seconds are those of the processor, all threads together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/precision.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, count, fast_startup, run_cli

if TYPE_CHECKING:
    from mmengine.config import Config

PRECISIONS = ("float32", "bfloat16", "float16")
CONFIG = Path(__file__).resolve().parents[2] / "configs/quickstart/detector.py"


@dataclass(frozen=True)
class Outcome:
    """What one training came to."""

    precision: str
    seed: int
    metric: float  # of the validation at the end
    loss: float  # mean of the last tenth of the iterations
    left_out: int  # updates with infinite gradients
    seconds: float  # of the processor, for an iteration


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default=str(CONFIG), help="default: the quickstart's")
    parser.add_argument("--iterations", type=count, default=950)
    parser.add_argument("--seeds", type=count, default=2, help="trainings of each precision")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument(
        "--metric", default="coco/bbox_mAP", help="of the validation (default coco/bbox_mAP)"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train one run after the other; each is printed when it ends."""
    args = parse_args(argv)
    outcomes: list[Outcome] = []
    print(f"{'':10}{'seed':>6}{'metric':>9}{'loss':>10}{'left out':>10}{'s/step':>9}", flush=True)
    for seed in range(args.seeds):
        for precision in args.precisions:
            with tempfile.TemporaryDirectory() as folder:
                found = train(args, precision, seed, folder)
            outcomes.append(found)
            print(
                f"{precision:10}{seed:6}{found.metric:9.3f}{found.loss:10.3f}"
                f"{found.left_out:10}{found.seconds:9.3f}",
                flush=True,
            )
    print("\n" + table(outcomes, args.metric))
    return 0


def train(args: argparse.Namespace, precision: str, seed: int, folder: str) -> Outcome:
    """Train once and validate."""
    with fast_startup():
        from llmdet.engine import build_runner
    config = prepare(args, precision, seed, folder)
    runner = build_runner(config)
    watch = _watch()
    runner.register_hook(watch, "LOWEST")
    start = time.process_time()
    runner.train()
    seconds = (time.process_time() - start) / args.iterations
    metrics = runner.val()
    last = watch.losses[-max(1, args.iterations // 10) :]
    return Outcome(
        precision, seed, metrics[args.metric], sum(last) / len(last), watch.left_out, seconds
    )


def prepare(args: argparse.Namespace, precision: str, seed: int, folder: str) -> Config:
    """The config of one training, which keeps nothing but its log."""
    from llmdet.engine import use_mixed_precision
    from llmdet.utils.config import load_config

    changes = {"max_iters": args.iterations, **args.cfg_options}
    config = load_config(args.config, changes)
    config.work_dir = folder
    config.randomness = dict(seed=seed)
    config.train_cfg.val_begin = args.iterations + 1
    config.default_hooks.checkpoint = dict(
        type="CheckpointHook", interval=args.iterations + 1, by_epoch=False, save_last=False
    )
    if precision != "float32":
        config.optim_wrapper.dtype = precision
        use_mixed_precision(config)
    return config


def _watch() -> Any:
    """A hook that notes the loss of each iteration, and updates that were left out."""
    from mmengine.hooks import Hook

    class Watch(Hook):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.left_out = 0
            self.scale = 0.0

        def after_train_iter(self, runner: Any, *_: Any, outputs: Any = None, **__: Any) -> None:
            self.losses.append(float(outputs["loss"]))
            scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
            if scaler is not None:
                self.left_out += scaler.get_scale() < self.scale
                self.scale = scaler.get_scale()

    return Watch()


def table(outcomes: Sequence[Outcome], metric: str) -> str:
    """Markdown: of each precision the metric of each seed, their mean, and the loss."""
    seeds = sorted({found.seed for found in outcomes})
    head = "".join(f" seed {seed} |" for seed in seeds)
    lines = [f"| {metric} |{head} mean | loss |", "|---" * (len(seeds) + 3) + "|"]
    for precision in dict.fromkeys(found.precision for found in outcomes):
        runs = [found for found in outcomes if found.precision == precision]
        each = "".join(f" {found.metric:.3f} |" for found in runs)
        mean = sum(found.metric for found in runs) / len(runs)
        loss = sum(found.loss for found in runs) / len(runs)
        lines.append(f"| {precision} |{each} {mean:.3f} | {loss:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
