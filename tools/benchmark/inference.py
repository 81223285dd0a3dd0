"""Time of detection at real size, beside transformers' implementation with the same weights.

    python tools/benchmark/inference.py                     # Swin-T, one image of 800 x 1333
    python tools/benchmark/inference.py --height 480 --width 640 --classes 80

Both run the same random weights on the same image and prompt. A "warm" run has its prompt's text
features cached, as every image after the first has.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/inference.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

PROMPT_TOKENS = 256
CONFIGS = Path(__file__).resolve().parents[2] / "configs/_base_/models"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["t", "b", "l"], default="t", help="Swin (default t)")
    parser.add_argument("--height", type=int, default=800, help="of the image (default 800)")
    parser.add_argument("--width", type=int, default=1333, help="of the image (default 1333)")
    parser.add_argument(
        "--classes", type=int, default=40, help="in the prompt, 84 at most (default 40)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of each (default 2)")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds of each way and the ratio to transformers'."""
    args = parse_args(argv)
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    names = class_names(args.classes)
    text = "".join(f"{name}. " for name in names)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = build_pair(args.model, folder)
        ours, theirs = ours.to(device), theirs.to(device)
        image = torch.randn(1, 3, args.height, args.width, device=device)
        ways = {
            "transformers": lambda: run_theirs(theirs, ours, image, text),
            "ours": lambda: run_ours(ours, image, names, cached=False),
            "ours, warm": lambda: run_ours(ours, image, names, cached=True),
        }
        print(f"Swin-{args.model.upper()}, {args.height} x {args.width}, {args.classes} classes, ")
        print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
        seconds = {name: clock(way, args.repeats, device) for name, way in ways.items()}
    for name, value in seconds.items():
        print(f"{name:>14} {value:8.3f} s   {seconds['transformers'] / value:5.2f} x")
    return 0


def build_pair(model: str, folder: str) -> tuple[Any, Any]:
    """The detector of a real config and transformers' model, both with the same random weights."""
    import torch
    from mmengine.config import Config
    from transformers import (
        BertConfig,
        BertModel,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
    )

    import llmdet.models  # noqa: F401  registers the classes
    from llmdet.checkpoint import config_from_state_dict, llmdet_to_transformers
    from llmdet.datasets.toy.models import tiny_bert
    from llmdet.registry import MODELS

    tiny_bert(folder)
    # The size of bert-base-uncased, with the tiny vocabulary.
    BertModel(BertConfig(vocab_size=30522), add_pooling_layer=False).save_pretrained(folder)
    config = Config.fromfile(CONFIGS / f"grounding_dino_swin_{model}.py").model
    config.language_model.name = folder
    torch.manual_seed(0)
    ours = MODELS.build(config).eval()
    weights = ours.state_dict()
    theirs = MMGroundingDinoForObjectDetection.from_pretrained(
        None,
        config=MMGroundingDinoConfig(**config_from_state_dict(weights, config.to_dict())),
        state_dict=llmdet_to_transformers(weights),
    )
    return ours, theirs.eval()


def run_ours(model: Any, image: Any, names: Sequence[str], cached: bool) -> None:
    """Detect with our model; without ``cached`` the text encoder runs."""
    from mmdet.structures import DetDataSample

    if not cached:
        model.language_model.train().eval()  # forgets encoded prompts
    size = (image.shape[-2], image.shape[-1])
    sample = DetDataSample(
        metainfo={"text": list(names), "img_shape": size, "scale_factor": (1.0, 1.0)}
    )
    model.predict(image, [sample])


def run_theirs(theirs: Any, ours: Any, image: Any, text: str) -> None:
    """Run transformers' model on the same image and prompt."""
    import torch

    tokens = ours.language_model.tokenizer([text], return_tensors="pt").to(image.device)
    with torch.no_grad():
        theirs(pixel_values=image, **tokens)


def clock(way: Callable[[], None], repeats: int, device: str) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    import torch

    way()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def class_names(count: int) -> list[str]:
    """Names of two words that the tokenizer knows: three tokens each, with the dot.

    Raises:
        ConfigError: they do not fit into one prompt, which is all that transformers' model runs.
    """
    from llmdet.datasets.toy.models import WORDS
    from llmdet.errors import ConfigError

    most = (PROMPT_TOKENS - 2) // 3  # beside [CLS] and [SEP]
    if not 1 <= count <= most:
        raise ConfigError(
            f"--classes {count}: one prompt of {PROMPT_TOKENS} tokens holds 1 to {most} classes"
        )
    return [f"{WORDS[i % len(WORDS)]} {WORDS[(i + 1) % len(WORDS)]}" for i in range(count)]


if __name__ == "__main__":
    run_cli(main)
