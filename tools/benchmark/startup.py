"""Seconds of whole programs, from the start of Python to their end: most of it is imports.

    python tools/benchmark/startup.py                          # about two minutes
    python tools/benchmark/startup.py --only detect --repeats 5

"detect" and "describe" are image_demo.py on one picture with the quickstart's model, whose
checkpoint is that of one step of training, "train". Programs take turns and the fastest run of each
counts, once by the clock on the wall and once by the processor (user and system, all threads): the
first means something on an idle machine only.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# What runs with `python tools/benchmark/startup.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import count, run_cli

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs/quickstart/llmdet.py")
CHECKPOINT = "work/iter_1.pth"
PROGRAMS = ("torch", "llmdet", "help", "detect", "describe", "train")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=count, default=3, help="runs of each (default 3)")
    parser.add_argument(
        "--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="programs (default: all)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of the programs."""
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        commands = prepare(Path(folder))
        run(commands["train"], folder)  # writes the checkpoint
        best = {name: (float("inf"), float("inf")) for name in args.only}
        for _ in range(args.repeats):
            for name in args.only:
                spent = run(commands[name], folder)
                best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    print(f"{os.cpu_count()} cores at a load of {os.getloadavg()[0]:.1f}")
    print("| program | wall, s | processor, s |\n|---|---|---|")
    for name, (wall, processor) in best.items():
        words = shlex.join(commands[name]).replace(f"{ROOT}/", "")
        print(f"| {name}: `python {words}` | {wall:.2f} | {processor:.2f} |")
    return 0


def prepare(folder: Path) -> dict[str, list[str]]:
    """Arguments of Python for each program; they run in ``folder``, which gets a toy set."""
    from skimage import data_dir

    from llmdet.datasets.toy.models import write_toy_models
    from llmdet.datasets.toy.writer import ToySettings, generate

    generate(folder / "data/toy", ToySettings(train=8, val=1))
    write_toy_models(folder / "data/toy")
    (folder / "image.png").symlink_to(Path(data_dir) / "astronaut.png")
    demo = str(ROOT / "image_demo.py")
    detect = [demo, "image.png", CONFIG, "--weights", CHECKPOINT]
    detect += ["-c", "--text", "orange square . white circle ."]
    train = [str(ROOT / "tools/train.py"), CONFIG, "--work-dir", "work"]
    return {
        "torch": ["-c", "import torch"],
        "llmdet": ["-c", "import llmdet"],
        "help": [demo, "--help"],
        "detect": detect,
        "describe": [*detect, "--caption"],
        "train": [*train, "--cfg-options", "train_cfg.max_iters=1"],
    }


def run(command: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds of the wall and of the processor that a program takes.

    Raises:
        RuntimeError: it failed; with what it wrote.
    """
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    processor = after.children_user - before.children_user
    return wall, processor + after.children_system - before.children_system


if __name__ == "__main__":
    run_cli(main)
