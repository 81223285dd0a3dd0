"""Time of detection with a class list as long as LVIS's, beside the original's procedure.

    python tools/benchmark/lvis_inference.py                  # a CPU: 80 classes, minutes
    python tools/benchmark/lvis_inference.py --classes 1203   # a GPU

Both find the same classes, 40 in a prompt, in the same images with the same random weights. The
original runs the backbone once an image and, one prompt after the other, BERT, encoder, decoder and
head, by the plain formulas; ours is the detector as it is. Both must give the same scores. On a CPU
the seconds are those of the processor, all threads together.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

# What runs with `python tools/benchmark/lvis_inference.py` finds the package beside it.
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

CHUNK = 40


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = detection_arguments(__doc__)
    parser.add_argument("--images", type=int, default=1, help="timed, after one that is not")
    parser.add_argument("--classes", type=int, help="default: 1203 on a GPU, 80 on a CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds an image of both ways and their ratio; 1 where their boxes differ."""
    args = parse_args(argv)
    import torch

    heading = prepare(args)
    device = args.device
    count = args.classes or (1203 if device.startswith("cuda") else 2 * CHUNK)
    names = class_names(count)
    with tempfile.TemporaryDirectory() as folder:
        model = chunked(build_detector(args.model, folder)[0]).to(device)
    batches: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, given: batches.append(len(given[0].feat)))
    print(f"{heading}, float32, {count} classes, {args.images} images", flush=True)
    spent = {"original": 0.0, "ours": 0.0}
    difference = 0.0
    for number in range(args.images + 1):
        image = torch.randn(1, 3, args.height, args.width, device=device)
        scores = {}
        for name, way in (("original", detect_like_original), ("ours", detect)):
            start = seconds(device)
            scores[name] = way(model, image, names).sort().values.to(device)
            if number:  # the first image warms up
                spent[name] += seconds(device) - start
        difference = max(difference, (scores["original"] - scores["ours"]).abs().max().item())
    for name, value in spent.items():
        ratio = spent["original"] / value
        print(f"{name:>10} {value / args.images:8.2f} s an image {ratio:6.2f} x")
    print(f"scores differ by {difference:.1e} at most; {max(batches)} prompts at a time")
    return 0 if difference < 1e-4 else 1


def chunked(model: Any) -> Any:
    """The detector with frozen weights and the protocol of LVIS."""
    settings = {"chunked_size": CHUNK, "limit_per": "chunk"}
    model.test_cfg = dataclasses.replace(model.test_cfg, **settings)
    return model.requires_grad_(False)


def detect(model: Any, image: Any, names: Sequence[str]) -> Any:
    """Scores that the detector gives."""
    return model.detect(image, [sample_of(image, names)]).detections[0].scores


def detect_like_original(model: Any, image: Any, names: Sequence[str]) -> Any:
    """Scores by the original's procedure: prompts one after the other, each through BERT."""
    import torch

    from llmdet.models.detectors.inference import Job, prompts_of, read_detections

    sample = sample_of(image, names)
    scores = []
    with plain_formulas():
        pyramid = model.read_images(image, [sample])
        for prompt in prompts_of(sample, model.language_model, model.test_cfg):
            features = model.forward_prompts(pyramid, [prompt])
            job = Job(0, prompt)
            found = read_detections(model.bbox_head, features, [job], [sample], model.test_cfg)
            scores.append(found[0].scores)
    return torch.cat(scores)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Turn off what this package does for inference; the frozen weights make no graph."""
    import torch

    from llmdet.models.transformer.fusion import BiMultiHeadAttention
    from llmdet.ops.deformable_attention import use_implementation

    with (
        torch.enable_grad(),
        patch.object(BiMultiHeadAttention, "_folds", lambda *_: False),
        torch.backends.mkldnn.flags(enabled=False),
        use_implementation("grid_sample"),
    ):
        yield


if __name__ == "__main__":
    run_cli(main)
