"""Train the model that a config describes.

    python tools/train.py CONFIG [--amp] [--compile] [--resume [CHECKPOINT]]
                                 [--cfg-options KEY=VALUE ...]

Several processes: bash dist_train.sh CONFIG GPUS [the same arguments].
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmdet.cli.running import run_with_runner
from llmdet.utils.cli import add_config_options, add_launcher, write_notice
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
        "--work-dir", help="folder of logs and checkpoints; default: work_dirs/<name of config>"
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: bf16, or what optim_wrapper.dtype of the config says",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for backbone, encoder and decoder, as compile of the config says",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint, or (auto) from the newest one in the work dir",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by actual / intended number of images per iteration",
    )
    add_config_options(parser)
    add_launcher(parser)
    return parser.parse_args(argv)


def prepare(args: argparse.Namespace) -> Config:
    """The config with everything that the command line changes."""
    from llmdet.engine import use_mixed_precision
    from llmdet.utils.config import load_model_config, set_work_dir

    config = load_model_config(args.config, args.cfg_options)
    config.launcher = join_launcher(args.launcher)
    set_work_dir(config, args.config, args.work_dir)
    if args.amp:
        use_mixed_precision(config)
    if args.compile:
        config.compile = config.get("compile") or True
    if args.auto_scale_lr:
        _scale_learning_rate(config)
    _refuse_to_begin_anew(args.resume)
    if args.resume is not None:
        _resume(config, args.resume)
    return config


def _scale_learning_rate(config: Config) -> None:
    from llmdet.errors import ConfigError

    if "base_batch_size" not in config.get("auto_scale_lr", {}):
        raise ConfigError(
            "--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config: the "
            "number of images per iteration that the learning rate is meant for."
        )
    config.auto_scale_lr.enable = True


def _resume(config: Config, checkpoint: str) -> None:
    from llmdet.engine import latest_checkpoint

    if checkpoint != "auto":
        config.load_from, config.resume = checkpoint, True
        return
    newest = latest_checkpoint(config.work_dir)
    if newest is None:
        # load_from stays: without it a first start with --resume would train from scratch.
        write_notice(
            f"--resume: {config.work_dir} has no checkpoint yet, starting from the beginning"
        )
        return
    config.load_from, config.resume = str(newest), True


def _refuse_to_begin_anew(resume: str | None) -> None:
    """Raise a ConfigError where torchrun starts a run again that it is not to continue."""
    from llmdet.errors import ConfigError

    if resume != "auto" and int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0:
        raise ConfigError(
            "torchrun started the processes again, and without --resume they would begin anew: "
            "with --max-restarts (MAX_RESTARTS of dist_train.sh) give --resume too; in an empty "
            "work dir it starts a run"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    run_with_runner(lambda: prepare(args), lambda runner: runner.train())
