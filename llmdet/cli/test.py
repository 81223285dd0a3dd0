"""Evaluate a checkpoint by the test set and the metrics of a config.

    python tools/test.py CONFIG CHECKPOINT [--out predictions.jsonl] [--show-dir DIR] [--tta]

Several processes: bash dist_test.sh CONFIG CHECKPOINT GPUS [the same arguments].
Predictions written by --out are read by tools/evaluate.py; a run that was interrupted
continues with the images that the file does not have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.running import run_with_runner
from llmdet.utils.cli import add_config_options, add_launcher
from llmdet.utils.launchers import join_launcher

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "checkpoint",
        help=".pth (ours, upstream's, MM-Grounding-DINO's), .safetensors, a transformers folder "
        "or a hub id",
    )
    parser.add_argument(
        "--work-dir", help="folder of logs and metrics; default: work_dirs/<name of config>"
    )
    parser.add_argument("--out", metavar="FILE.jsonl", help="write the predictions to this file")
    parser.add_argument("--show", action="store_true", help="show each picture in a window")
    parser.add_argument(
        "--show-dir", metavar="DIR", help="save pictures of the detections in this folder"
    )
    parser.add_argument(
        "--wait-time", type=float, default=2.0, help="seconds that a shown picture stays"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: the config's tta_model and tta_pipeline, or three scales",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of matrix products; boxes stay float32; default: the config's model.test_cfg.dtype, "
        "float32",
    )
    add_config_options(parser)
    add_launcher(parser)
    return parser.parse_args(argv)


def prepare(args: argparse.Namespace) -> Config:
    """The config with everything that the command line changes."""
    from llmdet.engine import use_test_time_augmentation, write_predictions
    from llmdet.engine.testing import answers_in_words
    from llmdet.errors import ConfigError
    from llmdet.models.detectors.settings import leave_learned_classes
    from llmdet.utils.config import load_model_config, set_work_dir

    config = load_model_config(args.config, args.cfg_options)
    config.launcher = join_launcher(args.launcher)
    config.load_from, config.resume = args.checkpoint, False
    config.pop("strategy", None)  # a test needs no gradients: every process can hold it whole
    if "load_missing" not in args.cfg_options:
        config.load_missing = []  # what training may begin anew must be there when it is tested
    speaks = answers_in_words(config)
    if speaks and (args.dtype or args.tta):
        raise ConfigError(
            f"{config.model.type} has neither --dtype nor --tta: its language model and its "
            "towers have a dtype each (--cfg-options model.lmm.dtype=bfloat16)"
        )
    if config.model.get("lmm") is not None and not speaks:
        config.model.lmm = None  # detection needs no language model: neither loaded nor in memory
    leave_learned_classes(config.model)
    if args.dtype:
        config.merge_from_dict({"model.test_cfg.dtype": args.dtype})
    set_work_dir(config, args.config, args.work_dir)
    _draw(config, args)
    if args.tta:
        use_test_time_augmentation(config)
    if args.out:
        write_predictions(config, args.out)
    return config


def _draw(config: Config, args: argparse.Namespace) -> None:
    """Draw every image where that is asked for; what a config draws is of validations."""
    hook = config.setdefault("default_hooks", {}).setdefault("visualization", {})
    hook.setdefault("type", "DetVisualizationHook")
    hook.draw = bool(args.show or args.show_dir)
    hook.show = args.show
    hook.wait_time = args.wait_time
    if args.show_dir:
        # An absolute folder is taken as it is; mmengine would put a relative one under its log.
        hook.test_out_dir = str(Path(args.show_dir).resolve())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    run_with_runner(lambda: prepare(args), lambda runner: runner.test())
