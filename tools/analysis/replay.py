"""Train once more on a batch that gave a loss that is no number, and say where numbers ended.

    python tools/analysis/replay.py work_dirs/RUN/diverged/iter_120_rank_0.pth CONFIG
    python tools/analysis/replay.py FILE CONFIG --checkpoint work_dirs/RUN/iter_100.pth

No weight is changed. The checkpoint is the last good one of the run; without it the model has the
weights that training starts from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# What runs with `python tools/analysis/replay.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, fast_startup, run_cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("batch", type=Path, metavar="FILE", help="in the work dir's 'diverged'")
    parser.add_argument("config", help="config of the run")
    parser.add_argument("--checkpoint", help="weights; default: load_from of the config")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print each loss, the first part that gave no number, and the weights it reached."""
    args = parse_args(argv)
    with fast_startup():
        from mmengine.registry import init_default_scope

        from llmdet.checkpoint import load_weights
        from llmdet.engine.replay import read_batch, replay
        from llmdet.registry import MODELS
        from llmdet.utils.config import load_model_config

    batch = read_batch(args.batch)
    config = load_model_config(args.config, args.cfg_options)
    init_default_scope(config.get("default_scope", "llmdet"))
    model = MODELS.build(config.model)
    model.init_weights()
    weights = args.checkpoint or config.get("load_from")
    if weights:
        missing = () if args.checkpoint else config.get("load_missing") or ()
        load_weights(model, weights, load_missing=missing)
    found = replay(model, batch)
    for name, value in found.losses.items():
        print(f"{name:>28} {value:.6g}")
    if found.first is None and not found.gradients:
        print("all parts, losses and gradients are finite numbers with these weights")
        return
    print(f"first part that gave NaN or infinity: {found.first or 'none; the losses themselves'}")
    print(f"weights with such gradients: {len(found.gradients)}, e.g. {found.gradients[:3]}")


if __name__ == "__main__":
    run_cli(main)
