"""Memory that a config's training takes on each GPU, by part, and the first setting that fits.

    python tools/analysis/memory.py CONFIG
    python tools/analysis/memory.py CONFIG --strategy fsdp2 --gpus 8 --amp --capacity 40
    python tools/analysis/memory.py CONFIG --measure --height 256 --width 256

Nothing is trained and no GPU is needed: a step runs on tensors that have sizes and no numbers, with
images of the largest size and the longest captions. Language models are not downloaded, but the
folders or hub ids of a config must have their configurations and tokenizers. --measure trains one
step of random weights on the CPU too, without mixed precision, and compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/analysis/memory.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, fast_startup, run_cli

STRATEGIES = ("ddp", "fsdp2", "zero-2")
_CLASSES = 40


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="default: the config's, ddp without one"
    )
    parser.add_argument("--gpus", type=int, default=8, help="processes (default 8)")
    parser.add_argument("--amp", action="store_true", help="bf16 as with tools/train.py --amp")
    parser.add_argument(
        "--capacity", type=float, default=80.0, metavar="GB", help="of a GPU (default 80)"
    )
    parser.add_argument("--height", type=int, default=800, help="of images (default 800)")
    parser.add_argument("--width", type=int, default=1333, help="of images (default 1333)")
    parser.add_argument("--boxes", type=int, default=20, help="of an image (default 20)")
    parser.add_argument(
        "--classes", type=int, help=f"names in a prompt (default {_CLASSES}, or fewer if need be)"
    )
    parser.add_argument("--phrases", type=int, default=16, help="region captions (default 16)")
    parser.add_argument("--measure", action="store_true", help="train a step on the CPU, compare")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the budget, and the first setting that fits."""
    args = parse_args(argv)
    with fast_startup():
        from llmdet.utils.config import load_model_config

        config = load_model_config(args.config, args.cfg_options)
        strategy = args.strategy or _name(config.get("strategy"))
        first = _trace(config, args, args.amp, config.train_dataloader.batch_size, None)
    budget = first.on(strategy, args.gpus)
    print(f"{args.config}: {strategy} on {args.gpus} GPUs of {args.capacity:g} GB, a GPU's share")
    for part, size in vars(budget).items():
        print(f"{part:>12} {size / 1e9:9.3f} GB")
    print(f"{'together':>12} {budget.total / 1e9:9.3f} GB")
    if args.measure:
        _print_measured(config, args)
    _print_fit(config, args, strategy, first)


def _name(strategy: Any) -> str:
    """How the command line names a config's strategy."""
    if strategy is None:
        return "ddp"
    if strategy["type"] == "DeepSpeed":
        return f"zero-{strategy.get('stage', 2)}"
    return str(strategy["type"]).lower()


def _print_measured(config: Any, args: argparse.Namespace) -> None:
    from llmdet.engine.memory import measure_step
    from llmdet.registry import MODELS

    calculated = _trace(config, args, False, config.train_dataloader.batch_size, None).peak
    settings = _settings_of_model(config, None)
    if settings.get("lmm") is not None:
        settings.lmm["pretrained"] = False
    model = MODELS.build(settings)
    found = measure_step(model, _workload(config, args, model))
    print(
        f"beside weights and optimizer a step takes {found / 1e9:.3f} GB on this CPU, "
        f"{calculated / 1e9:.3f} GB were calculated ({100 * (calculated / found - 1):+.1f} %)"
    )


def _print_fit(config: Any, args: argparse.Namespace, strategy: str, first: Any) -> None:
    for name, trace, chosen in _settings(config, args, strategy, first):
        budget = trace.on(chosen, args.gpus)
        if budget.total <= args.capacity * 1e9:
            print(f"first fit: {name}, {budget.total / 1e9:.3f} GB")
            return
    print(f"nothing of this fits into {args.capacity:g} GB: take more GPUs or smaller images")


def _settings(config: Any, args: argparse.Namespace, strategy: str, first: Any) -> Any:
    """Settings from the one that was given to the most frugal, each with its trace."""
    yield "as it is", first, strategy
    images = config.train_dataloader.batch_size
    trace, names = first, []
    if not args.amp:
        names.append("--amp")
        trace = _trace(config, args, True, images, None)
        yield ", ".join(names), trace, strategy
    lmm = config.model.get("lmm")
    if lmm is not None and not lmm.get("checkpoint"):
        names.append("model.lmm.checkpoint=True")
        trace = _trace(config, args, True, images, True)
        yield ", ".join(names), trace, strategy
    if strategy != "fsdp2" and args.gpus > 1:
        names.append("strategies/fsdp2.py")
        yield ", ".join(names), trace, "fsdp2"
    while images > 1:
        images //= 2
        size = f"train_dataloader.batch_size={images}"
        trace = _trace(config, args, True, images, True)
        yield ", ".join([*names, size]), trace, "fsdp2" if args.gpus > 1 else strategy


def _trace(
    config: Any, args: argparse.Namespace, amp: bool, images: int, recompute: bool | None
) -> Any:
    from dataclasses import replace

    import torch
    from mmengine.registry import init_default_scope

    from llmdet.engine.memory import build_without_numbers, trace_step

    init_default_scope("llmdet")
    model = build_without_numbers(_settings_of_model(config, recompute))
    work = replace(_workload(config, args, model), images=images)
    return trace_step(model, work, amp=torch.bfloat16 if amp else None)


def _settings_of_model(config: Any, recompute: bool | None) -> Any:
    settings = config.model.copy()
    settings.pop("connector", None)  # the same weights, whatever they are
    (settings.get("backbone") or {}).pop("init_cfg", None)
    if settings.get("lmm") is not None:
        settings.lmm = {**settings.lmm, "dtype": settings.lmm.get("dtype") or "bfloat16"}
        if recompute:
            settings.lmm["checkpoint"] = True
    return settings


def _workload(config: Any, args: argparse.Namespace, model: Any) -> Any:
    """What a process trains on, with as many classes as its prompt holds.

    Raises:
        ConfigError: --classes are more.
    """
    from llmdet.engine.memory import Workload, class_prompt
    from llmdet.errors import ConfigError

    encoder = model.language_model

    def fits(classes: int) -> bool:
        text, _ = class_prompt(classes)
        return len(encoder.tokenizer(text, verbose=False)["input_ids"]) <= encoder.max_tokens

    classes = args.classes or next(n for n in range(_CLASSES, 0, -1) if n == 1 or fits(n))
    if not fits(classes):
        raise ConfigError(
            f"--classes {classes}: their prompt has more tokens than the {encoder.max_tokens} of "
            "language_model.max_tokens; give fewer"
        )
    images = config.train_dataloader.batch_size
    return Workload(images, args.height, args.width, args.boxes, classes, args.phrases)


if __name__ == "__main__":
    run_cli(main)
