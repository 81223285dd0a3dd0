"""Ways to fine-tune the quickstart's detector: what each gains, forgets and costs.

    python -m llmdet.datasets.toy.new_shapes data/new_shapes
    python tools/benchmark/finetune.py work_dirs/quickstart/latest.pth data/new_shapes [FOLDER ...]

Each FOLDER is one that configs/finetune/ takes: instances_train.json, instances_val.json, images/.
Every way trains the same number of steps in a process of its own. Printed are COCO's AP of the
folder's classes and of the toy set's, seconds of the processor in the steps alone, and the most
memory that the process held, weights, data and libraries included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/finetune.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, count, run_cli, write_result

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("full", "full_replay", "decoder_only", "lora", "prompt_tuning")
#: Which runs are also measured halfway back to what they started from.
INTERPOLATED = ("full", "full_replay")
HEAD = ("way", "numbers that train", "target AP", "zero-shot AP", "s", "MB")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="of the quickstart")
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    parser.add_argument("--steps", type=count, default=100, help="of each training (default 100)")
    parser.add_argument("--toy", default="data/toy", help="the toy set (default data/toy)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/finetune"))
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print a table for each folder."""
    args = parse_args(argv)
    import llmdet.engine  # noqa: F401  once for all processes, which begin as copies of this one

    for folder in args.folders:
        write_result(f"\n{folder.name}: {args.steps} steps\n\n| {' | '.join(HEAD)} |")
        write_result("|---" * len(HEAD) + "|")
        for method in args.methods:
            for cells in in_a_process(train, args, folder, method):
                write_result(f"| {' | '.join(cells)} |")
                sys.stdout.flush()
    return 0


def in_a_process(work: Any, *arguments: Any) -> Any:
    """What ``work`` returns in a copy of this process, whose memory is then its own.

    Raises:
        SystemExit: it failed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        sender.send(work(*arguments))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{arguments[1:]} failed; its log is in the work dir") from None
    finally:
        process.join()


def train(args: argparse.Namespace, folder: Path, method: str) -> list[list[str]]:
    """Train once; returns the rows of the table."""
    from llmdet.checkpoint.interpolation import Ends
    from llmdet.engine import build_runner
    from llmdet.engine.forgetting import REPORT, measure_both
    from llmdet.utils.build import checked_builds

    config = configured(args, folder, method)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)  # the log is in a file too
    runner = build_runner(config)
    clock = step_clock()
    runner.register_hook(clock, priority="VERY_LOW")
    with checked_builds():
        model = runner.train()
    report = json.loads(Path(config.work_dir, REPORT).read_text())
    before, after = (shown(report[when]) for when in ("before", "after"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    gains = [f"{a} → {b}" for a, b in zip(before, after, strict=True)]
    rows = [[method, f"{trained:,}", *gains, f"{clock.seconds:.0f}", f"{memory:,.0f}"]]
    if method in INTERPOLATED:
        last = Path(config.work_dir, f"iter_{args.steps}.pth")
        model.load_state_dict(Ends.read(args.weights, last).at(0.5))
        halfway = shown(vars(measure_both(runner)))
        gains = [f"{a} → {b}" for a, b in zip(before, halfway, strict=True)]
        rows.append([f"{method}, alpha 0.5", "-", *gains, "0", "-"])
    return rows


def configured(args: argparse.Namespace, folder: Path, method: str) -> Any:
    """The config of a run, which validates at its end alone."""
    from llmdet.utils.config import load_config, set_work_dir

    toy = f"{Path(args.toy).resolve()}/"
    options = {
        "data_root": f"{folder.resolve()}/",
        "zero_shot_root": toy,
        "lang_model_name": f"{toy}bert",
        "load_from": str(Path(args.weights).resolve()),
        "max_iters": args.steps,
        "train_cfg.val_interval": args.steps,
        # Loading is a small part of a step: workers would be counted elsewhere.
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "val_dataloader.num_workers": 0,
        "val_dataloader.persistent_workers": False,
        "default_hooks.checkpoint.save_best": None,
        "default_hooks.visualization.draw": False,
        "randomness.seed": 0,
        **({"replay_root": toy} if method == "full_replay" else {}),
        **args.cfg_options,
    }
    path = ROOT / "configs" / "finetune" / f"{method}.py"
    config = load_config(path, options)
    set_work_dir(config, path, str(args.work_dir / f"{folder.name}_{method}"))
    return config


def shown(measured: Any) -> list[str]:
    """AP in percent of target and zero-shot."""
    return [f"{100 * measured[data]['coco/bbox_mAP']:.1f}" for data in ("target", "zero_shot")]


def step_clock() -> Any:
    """A hook that adds up what the processor spends in steps."""
    from mmengine.hooks import Hook

    class StepClock(Hook):
        seconds = 0.0

        def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.process_time()

        def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
            self.seconds += time.process_time() - self.start

    return StepClock()


if __name__ == "__main__":
    run_cli(main)
