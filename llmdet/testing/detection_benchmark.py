"""What benchmarks of detection share: arguments, a clock, random weights, images and names."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmdet.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs/_base_/models"


def detection_arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the model, the size of images and where it runs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["t", "b", "l"], default="t", help="Swin (default t)")
    parser.add_argument("--height", type=int, default=800, help="of images (default 800)")
    parser.add_argument("--width", type=int, default=1333, help="of images (default 1333)")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch chooses")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser


def prepare(args: argparse.Namespace) -> str:
    """Set the number of threads and fill ``args.device``; returns what heads a table."""
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    size = f"Swin-{args.model.upper()}, {args.height} x {args.width}"
    return f"{size}, {device}, torch {torch.__version__}"


def seconds(device: str) -> float:
    """A clock: of the wall on a GPU, when it has done its work; of the processor on a CPU."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def build_detector(model: str, folder: str | Path) -> tuple[Any, Any]:
    """The detector of a real size with random weights, in eval mode, and its config.

    Args:
        model: "t", "b" or "l".
        folder: where a text encoder of the size of bert-base-uncased is written, with a vocabulary
            of few words.
    """
    import torch
    from mmengine.config import Config
    from transformers import BertConfig, BertModel

    import llmdet.models  # noqa: F401  registers the classes
    from llmdet.datasets.toy.models import tiny_bert
    from llmdet.registry import MODELS

    tiny_bert(folder)
    BertModel(BertConfig(vocab_size=30522), add_pooling_layer=False).save_pretrained(folder)
    config = Config.fromfile(CONFIGS / f"grounding_dino_swin_{model}.py").model
    config.language_model.name = str(folder)
    torch.manual_seed(0)
    return MODELS.build(config).eval(), config


def sample_of(image: Any, names: Sequence[str]) -> Any:
    """A data sample that looks for ``names`` in an image [1, 3, H, W]."""
    from mmdet.structures import DetDataSample

    size = (image.shape[-2], image.shape[-1])
    return DetDataSample(
        metainfo={"text": list(names), "img_shape": size, "scale_factor": (1.0, 1.0)}
    )


def class_names(count: int) -> list[str]:
    """Different names of two words that the tokenizer knows: three tokens each, with the dot.

    Raises:
        ConfigError: there are not so many.
    """
    from llmdet.datasets.toy.models import WORDS

    pairs = [f"{first} {second}" for first in WORDS for second in WORDS]
    if not 1 <= count <= len(pairs):
        raise ConfigError(f"--classes {count}: choose 1 to {len(pairs)}")
    return pairs[:count]
