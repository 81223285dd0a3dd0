"""Convert checkpoints between LLMDet, the original LLMDet and transformers.

Examples:
    python tools/convert/checkpoint.py swin_t.pth llmdet_t/ --to transformers --tokenizer bert/
    python tools/convert/checkpoint.py llmdet_tiny/ tiny.safetensors --to llmdet
    python tools/convert/checkpoint.py epoch_1.pth merged.pth --lora merge --config CONFIG
    python tools/convert/checkpoint.py epoch_1.pth adapter/ --lora adapter --config CONFIG
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from llmdet.utils.cli import write_result

SOURCES = ("auto", "upstream", "mm_grounding_dino", "transformers", "llmdet")
TEST_SCALE = (800, 1333)  # of Swin-T and B: shorter side, limit of the longer one
TARGETS = ("llmdet", "transformers", "upstream")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    for line in convert(parse_args(argv)):
        write_result(line)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", help="file, transformers folder or hub id")
    parser.add_argument("target", metavar="OUT", help=".pth or .safetensors file, or folder")
    parser.add_argument("--from", dest="source_format", choices=SOURCES, default="auto")
    parser.add_argument("--to", dest="target_format", choices=TARGETS, default="llmdet")
    parser.add_argument("--config", help="config of the model: heads, tokenizer, LoRA's alpha")
    parser.add_argument("--tokenizer", help="BERT whose tokenizer goes into a transformers folder")
    parser.add_argument(
        "--lora",
        choices=("keep", "merge", "adapter"),
        default="keep",
        help="merge LoRA into the maps beside it, or write the language model's as a peft folder",
    )
    parser.add_argument("--lora-alpha", type=float, help="alpha where no --config tells it")
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> list[str]:
    """Does what the arguments say; returns what to tell."""
    from llmdet.checkpoint import convert_checkpoint

    model, scale = read_config(args.config)
    if args.lora != "keep":
        return convert_lora(args, model)
    conversion = convert_checkpoint(
        args.source,
        args.target,
        source_format=args.source_format,
        target_format=args.target_format,
        model=model,
        tokenizer=args.tokenizer,
        test_scale=scale,
    )
    lines = [
        f"{args.source} ({conversion.source_format}) -> {args.target} ({args.target_format}): "
        f"{len(conversion.written)} tensors"
    ]
    lines += [f"left out {len(keys)}: {why}" for why, keys in conversion.left_out.items()]
    if conversion.resized:
        lines.append(
            f"{len(conversion.resized)} tensors brought to sizes that transformers' class has; "
            "what they compute is the same"
        )
    if args.target_format == "transformers":
        from llmdet.checkpoint.transformers_check import measure_deviation

        lines.append(measure_deviation(args.target).sentence())
    return lines


def convert_lora(args: argparse.Namespace, model: dict[str, Any] | None) -> list[str]:
    """Merges LoRA or writes it alone; returns what to tell."""
    from llmdet.checkpoint import read_checkpoint, write_checkpoint
    from llmdet.checkpoint.adapters import merge_lora, save_adapter
    from llmdet.checkpoint.frozen import complete
    from llmdet.checkpoint.load import to_llmdet
    from llmdet.errors import ConfigError

    lmm = (model or {}).get("lmm") or {}
    alpha = args.lora_alpha or (lmm.get("lora") or {}).get("alpha")
    detector_alpha = args.lora_alpha or _detector_alpha(model)
    if alpha is None and detector_alpha is None:
        raise ConfigError(
            "LoRA's alpha is not stored in checkpoints: give --config or --lora-alpha"
        )
    if args.target_format != "llmdet":
        raise ConfigError(f"--lora {args.lora} writes our names; leave out --to")
    checkpoint = read_checkpoint(args.source)
    _, state_dict = to_llmdet(checkpoint, args.source_format)
    if args.lora == "adapter":
        if alpha is None:
            raise ConfigError("a peft folder holds LoRA of a language model: the config has none")
        base = lmm.get("model")
        save_adapter(state_dict, args.target, alpha, base if isinstance(base, str) else None)
        return [f"LoRA of {args.source} -> {args.target}"]
    whole = complete(state_dict, checkpoint.meta, args.source, lmm.get("model"))
    merged = merge_lora(whole, alpha, detector_alpha)
    write_checkpoint(args.target, merged)
    return [f"{args.source} with LoRA merged -> {args.target}: {len(merged)} tensors"]


def _detector_alpha(model: dict[str, Any] | None) -> float | None:
    """The alpha of LoRA in the detector, None where it has none."""
    from llmdet.models.detectors.tuning import Tuning

    tuning = Tuning.from_config((model or {}).get("tuning"))
    return None if tuning is None or tuning.lora is None else tuning.lora.alpha


def read_config(path: str | None) -> tuple[dict[str, Any] | None, tuple[int, int]]:
    """The ``model`` of a config file, and the scale of its test images."""
    if path is None:
        return None, TEST_SCALE
    from llmdet.utils.config import load_config

    config = load_config(path)
    steps = (config.get("test_dataloader") or {}).get("dataset", {}).get("pipeline", [])
    scales = [tuple(step["scale"]) for step in steps if step["type"] == "FixScaleResize"]
    return config.model.to_dict(), (scales or [TEST_SCALE])[0]
