"""Time of detection at real size, beside transformers' implementation with the same weights.

    python tools/benchmark/inference.py                     # Swin-T, one image of 800 x 1333
    python tools/benchmark/inference.py --height 480 --width 640 --classes 80 --threads 1

Both run the same random weights on the same image and prompt, one after the other in each repeat;
the fastest repeat counts. Our text features are computed anew in every run, as transformers' are.
On a CPU the seconds are those of the processor, all threads together: what else the machine does
is not in them.
"""

from __future__ import annotations

import argparse
import dataclasses
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
        "--classes", type=int, default=30, help="in the prompt, 84 at most (default 30)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of each (default 2)")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch chooses")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds by part of each way, and the ratio to transformers'."""
    args = parse_args(argv)
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    names = class_names(args.classes)
    text = "".join(f"{name}. " for name in names)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = build_pair(args.model, folder)
    ours, theirs = ours.to(device), theirs.to(device)
    clock = Clock(device)
    clock.watch(ours, OURS)
    clock.watch(theirs, THEIRS)
    image = torch.randn(1, 3, args.height, args.width, device=device)
    ways = {
        "transformers": lambda: run_theirs(theirs, ours, image, text),
        "float32": lambda: run_ours(ours, image, names, "float32"),
        "bfloat16": lambda: run_ours(ours, image, names, "bfloat16"),
    }
    print(f"Swin-{args.model.upper()}, {args.height} x {args.width}, {args.classes} classes, ")
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    seconds = clock.fastest(ways, args.repeats)
    print(table(seconds))
    return 0


#: By part: the modules of each of its runs, first and last; "*" stands for the number of a layer.
Parts = dict[str, tuple[str, str]]
OURS: Parts = {
    "backbone": ("backbone", "neck"),
    "text": ("language_model", "language_model"),
    "deformable attention": ("encoder.layers.*.self_attn", "encoder.layers.*.self_attn"),
    "fusion": ("encoder.fusion_layers.*", "encoder.fusion_layers.*"),
    "FFN": ("encoder.layers.*.ffn", "encoder.layers.*.ffn"),
    "decoder": ("decoder", "decoder"),
}
THEIR_LAYER = "model.encoder.layers.*"
THEIRS: Parts = {
    "backbone": ("model.backbone", "model.input_proj_vision.3"),
    "text": ("model.text_backbone", "model.text_backbone"),
    "deformable attention": (
        f"{THEIR_LAYER}.deformable_layer.self_attn",
        f"{THEIR_LAYER}.deformable_layer.self_attn",
    ),
    "fusion": (f"{THEIR_LAYER}.fusion_layer", f"{THEIR_LAYER}.fusion_layer"),
    "FFN": (f"{THEIR_LAYER}.deformable_layer.fc1", f"{THEIR_LAYER}.deformable_layer.fc2"),
    "decoder": ("model.decoder", "model.decoder"),
}


class Clock:
    """Seconds of a run and of its parts, by hooks on modules."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.spent: dict[str, float] = {}
        self._began = 0.0

    def now(self) -> float:
        """Seconds: of the wall on a GPU, of the processor on a CPU."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if self.cuda else time.process_time()

    def watch(self, model: Any, parts: Parts) -> None:
        """Add up the seconds of these parts whenever ``model`` runs."""
        modules = dict(model.named_modules())
        layers = [str(number) for number in range(100)]
        for part, (first, last) in parts.items():
            for number in layers if "*" in first else layers[:1]:
                if (name := first.replace("*", number)) in modules:
                    modules[name].register_forward_pre_hook(self._start)
                    modules[last.replace("*", number)].register_forward_hook(self._stop(part))

    def fastest(
        self, ways: dict[str, Callable[[], None]], repeats: int
    ) -> dict[str, dict[str, float]]:
        """Seconds by part of the fastest run of each way, after one that is not counted."""
        best: dict[str, dict[str, float]] = {}
        for way in ways.values():
            way()
        for _ in range(repeats):
            for name, way in ways.items():
                self.spent = {}
                start = self.now()
                way()
                whole = self.now() - start
                found = {**self.spent, "rest": whole - sum(self.spent.values()), "all": whole}
                best[name] = min(best.get(name, found), found, key=lambda parts: parts["all"])
        return best

    def _start(self, *_: Any) -> None:
        self._began = self.now()

    def _stop(self, part: str) -> Callable[..., None]:
        def stop(*_: Any) -> None:
            self.spent[part] = self.spent.get(part, 0.0) + self.now() - self._began

        return stop


def table(seconds: dict[str, dict[str, float]]) -> str:
    """Seconds by part as a table of Markdown; the last row is the share of transformers' time."""
    rows = [["seconds", *seconds], ["---"] * (len(seconds) + 1)]
    for part in [*OURS, "rest", "all"]:
        rows.append([part, *(f"{parts.get(part, 0.0):.2f}" for parts in seconds.values())])
    whole = seconds["transformers"]["all"]
    rows.append(["of transformers'", *(f"{v['all'] / whole:.2f}" for v in seconds.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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


def run_ours(model: Any, image: Any, names: Sequence[str], dtype: str) -> None:
    """Detect with our model, its text encoder included."""
    from mmdet.structures import DetDataSample

    model.language_model.train().eval()  # forgets encoded prompts
    model.test_cfg = dataclasses.replace(model.test_cfg, dtype=dtype)
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
