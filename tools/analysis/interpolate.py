"""Write weights between those before and after a fine-tuning (WiSE-FT), or measure a row of them.

    python tools/analysis/interpolate.py BEFORE AFTER --alpha 0.5 OUT
    python tools/analysis/interpolate.py BEFORE AFTER --alpha 0,0.25,0.5,0.75,1 --curve CONFIG

0 is BEFORE, 1 is AFTER. --curve measures each on the target and the zero-shot set of CONFIG, one
of configs/finetune/ for example, and prints a table; with OUT each is written too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# What runs with `python tools/analysis/interpolate.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, fraction, run_cli, write_result

if TYPE_CHECKING:
    from llmdet.checkpoint.interpolation import Ends


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", metavar="BEFORE", help="weights that were fine-tuned")
    parser.add_argument("after", metavar="AFTER", help="what they became, LoRA merged")
    parser.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        type=Path,
        help=".pth or .safetensors file; of several alphas each gets its own, NAME_0.25.pth",
    )
    parser.add_argument(
        "--alpha",
        type=lambda text: [fraction(part) for part in text.split(",")],
        default=[0.5],
        metavar="A[,B...]",
        help="how far to go from BEFORE to AFTER (default 0.5)",
    )
    parser.add_argument("--curve", metavar="CONFIG", help="measure on its two sets")
    add_config_options(parser)
    args = parser.parse_intermixed_args(argv)  # OUT may stand behind the options
    if args.out is None and args.curve is None:
        parser.error("give OUT, --curve CONFIG, or both")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    args = parse_args(argv)
    from llmdet.checkpoint import write_checkpoint
    from llmdet.checkpoint.interpolation import Ends

    ends = Ends.read(args.before, args.after)
    if args.out is not None:
        for alpha in args.alpha:
            path = args.out
            if len(args.alpha) > 1:
                path = path.with_name(f"{path.stem}_{alpha:g}{path.suffix}")
            weights = ends.at(alpha)
            write_checkpoint(path, weights, ends.meta)
            write_result(f"{path}: {len(weights)} tensors at alpha {alpha:g}")
    if args.curve is not None:
        write_result(curve(ends, args))
    return 0


def curve(ends: Ends, args: argparse.Namespace) -> str:
    """A table of target and zero-shot accuracy at each alpha."""
    from llmdet.checkpoint.load import load_state_dict
    from llmdet.engine import build_runner
    from llmdet.engine.forgetting import comparison, measure_both
    from llmdet.utils.build import checked_builds
    from llmdet.utils.config import load_model_config, set_work_dir

    config = load_model_config(args.curve, args.cfg_options)
    set_work_dir(config, args.curve, None)
    config.load_from, config.model.tuning = None, None
    runner = build_runner(config)
    rows = {}
    with checked_builds():
        for alpha in args.alpha:
            load_state_dict(runner.model, ends.at(alpha), f"weights at alpha {alpha:g}")
            rows[f"alpha {alpha:g}"] = measure_both(runner)
    return comparison(rows)


if __name__ == "__main__":
    run_cli(main)
