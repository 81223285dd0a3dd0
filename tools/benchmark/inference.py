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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/inference.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.detection_benchmark import (
    build_detector,
    class_names,
    detection_arguments,
    prepare,
    sample_of,
    seconds,
)
from llmdet.utils.cli import run_cli

PROMPT_TOKENS = 256


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = detection_arguments(__doc__)
    parser.add_argument(
        "--classes", type=int, default=30, help="in the prompt, 84 at most (default 30)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of each (default 2)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds by part of each way, and the ratio to transformers'."""
    args = parse_args(argv)
    import torch

    heading = prepare(args)
    device = args.device
    names = prompt_names(args.classes)
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
    print(f"{heading}, {args.classes} classes", flush=True)
    print(table(clock.fastest(ways, args.repeats)))
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
        self.device = device
        self.spent: dict[str, float] = {}
        self._began = 0.0

    def now(self) -> float:
        """Seconds, see :func:`seconds`."""
        return seconds(self.device)

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


def table(found: dict[str, dict[str, float]]) -> str:
    """Seconds by part as a table of Markdown; the last row is the share of transformers' time."""
    rows = [["seconds", *found], ["---"] * (len(found) + 1)]
    for part in [*OURS, "rest", "all"]:
        rows.append([part, *(f"{parts.get(part, 0.0):.2f}" for parts in found.values())])
    whole = found["transformers"]["all"]
    rows.append(["of transformers'", *(f"{v['all'] / whole:.2f}" for v in found.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def build_pair(model: str, folder: str) -> tuple[Any, Any]:
    """The detector of a real config and transformers' model, both with the same random weights."""
    from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

    from llmdet.checkpoint import config_from_state_dict, llmdet_to_transformers
    from llmdet.checkpoint.transformers_sizes import Heads, fit_sizes

    ours, config = build_detector(model, folder)
    weights = fit_sizes(ours.state_dict(), Heads.of_model(config.to_dict()))
    theirs = MMGroundingDinoForObjectDetection.from_pretrained(
        None,
        config=MMGroundingDinoConfig(**config_from_state_dict(weights, config.to_dict())),
        state_dict=llmdet_to_transformers(weights),
    )
    return ours, theirs.eval()


def run_ours(model: Any, image: Any, names: Sequence[str], dtype: str) -> None:
    """Detect with our model, its text encoder included."""
    model.language_model.train().eval()  # forgets encoded prompts
    model.test_cfg = dataclasses.replace(model.test_cfg, dtype=dtype)
    model.predict(image, [sample_of(image, names)])


def run_theirs(theirs: Any, ours: Any, image: Any, text: str) -> None:
    """Run transformers' model on the same image and prompt."""
    import torch

    tokens = ours.language_model.tokenizer([text], return_tensors="pt").to(image.device)
    with torch.no_grad():
        theirs(pixel_values=image, **tokens)


def prompt_names(count: int) -> list[str]:
    """Class names of one prompt.

    Raises:
        ConfigError: they do not fit into one prompt, which is all that transformers' model runs.
    """
    from llmdet.errors import ConfigError

    most = (PROMPT_TOKENS - 2) // 3  # beside [CLS] and [SEP]
    if not 1 <= count <= most:
        raise ConfigError(
            f"--classes {count}: one prompt of {PROMPT_TOKENS} tokens holds 1 to {most} classes"
        )
    return class_names(count)


if __name__ == "__main__":
    run_cli(main)
