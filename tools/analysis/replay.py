"""Train once more on a batch that gave a loss that is no number, and say where numbers ended.

    python tools/analysis/replay.py work_dirs/RUN/diverged/iter_120_rank_0.pth CONFIG
    python tools/analysis/replay.py FILE CONFIG --weights work_dirs/RUN/iter_100.pth

Give the last good checkpoint of the run; without it the model has the weights that training starts
from. No weight is changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# What runs with `python tools/analysis/replay.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.cli.model import add_model_options
from llmdet.utils.cli import fast_startup, run_cli, write_result


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("batch", type=Path, metavar="FILE", help="in the work dir's 'diverged'")
    parser.add_argument("config", help="config of the run")
    add_model_options(parser, weights="load_from of the config")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print each loss, the first part that gave no number, and the weights it reached."""
    args = parse_args(argv)
    with fast_startup():
        from mmengine.registry import init_default_scope

        from llmdet.apis.building import choose_device
        from llmdet.checkpoint import load_weights
        from llmdet.engine.replay import read_batch, replay
        from llmdet.registry import MODELS
        from llmdet.utils.config import load_model_config

    batch = read_batch(args.batch)
    config = load_model_config(args.config, args.cfg_options)
    init_default_scope(config.get("default_scope", "llmdet"))
    model = MODELS.build(config.model)
    model.init_weights()
    weights = args.weights or config.get("load_from")
    if weights:
        missing = () if args.weights else config.get("load_missing") or ()
        load_weights(model, weights, load_missing=missing)
    found = replay(model.to(choose_device(args.device)), batch)
    for name, value in found.losses.items():
        write_result(f"{name:>28} {value:.6g}")
    if found.first is None and not found.gradients:
        write_result("all parts, losses and gradients are finite numbers with these weights")
        return
    first = found.first or "none; the losses themselves"
    write_result(f"first part that gave NaN or infinity: {first}")
    write_result(f"weights with such gradients: {len(found.gradients)}, e.g. {found.gradients[:3]}")


if __name__ == "__main__":
    run_cli(main)
