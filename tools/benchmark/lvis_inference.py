"""Time of detection with a class list as long as LVIS's, beside the original's procedure.

    python tools/benchmark/lvis_inference.py                  # a CPU: 80 classes, minutes
    python tools/benchmark/lvis_inference.py --classes 1203   # a GPU

Both find the same classes, 40 in a prompt, in the same images with the same random weights of
Swin-T. The original runs the backbone once an image and, one prompt after the other, BERT,
encoder, decoder and head, by the plain formulas; ours is the detector as it is. Both must give the
same scores. On a CPU the seconds are those of the processor, all threads together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/lvis_inference.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

CHUNK = 40
CONFIG = Path(__file__).resolve().parents[2] / "configs/_base_/models/grounding_dino_swin_t.py"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1, help="timed, after one that is not")
    parser.add_argument("--classes", type=int, help="default: 1203 on a GPU, 80 on a CPU")
    parser.add_argument("--height", type=int, default=800, help="of the images (default 800)")
    parser.add_argument("--width", type=int, default=1333, help="of the images (default 1333)")
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch chooses")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds an image of both ways and their ratio; 1 where their boxes differ."""
    args = parse_args(argv)
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    count = args.classes or (1203 if device.startswith("cuda") else 2 * CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        model = build_detector(folder).to(device)
    spent = {"original": 0.0, "ours": 0.0}
    difference = 0.0
    for number in range(args.images + 1):
        image = torch.randn(1, 3, args.height, args.width, device=device)
        scores = {}
        for name, way in (("original", detect_like_original), ("ours", detect)):
            start = now(device)
            scores[name] = way(model, image, class_names(count)).sort().values
            if number:  # the first image warms up
                spent[name] += now(device) - start
        difference = max(difference, (scores["original"] - scores["ours"]).abs().max().item())
    print(f"Swin-T, {args.height} x {args.width}, {count} classes, {args.images} images, {device},")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    for name, seconds in spent.items():
        ratio = spent["original"] / seconds
        print(f"{name:>10} {seconds / args.images:8.2f} s an image {ratio:6.2f} x")
    print(f"scores differ by {difference:.1e} at most")
    return 0 if difference < 1e-4 else 1


def now(device: str) -> float:
    """Seconds: of the wall on a GPU, of the processor on a CPU."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def build_detector(folder: str) -> Any:
    """Swin-T's detector with random weights, BERT at its real size."""
    import torch
    from mmengine.config import Config
    from transformers import BertConfig, BertModel

    import llmdet.models  # noqa: F401  registers the classes
    from llmdet.datasets.toy.models import tiny_bert
    from llmdet.registry import MODELS

    tiny_bert(folder)
    BertModel(BertConfig(vocab_size=30522), add_pooling_layer=False).save_pretrained(folder)
    config = Config.fromfile(CONFIG).model
    config.language_model.name = folder
    config.test_cfg.update(chunked_size=CHUNK, limit_per="chunk")
    torch.manual_seed(0)
    return MODELS.build(config).eval().requires_grad_(False)


def sample_of(image: Any, names: Sequence[str]) -> Any:
    """A data sample that looks for ``names``."""
    from mmdet.structures import DetDataSample

    size = (image.shape[-2], image.shape[-1])
    return DetDataSample(
        metainfo={"text": list(names), "img_shape": size, "scale_factor": (1.0, 1.0)}
    )


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
        maps = model.extract_maps(image, [sample])
        for prompt in prompts_of(sample, model.language_model, model.test_cfg):
            predictions = model.forward_prompts(maps, [prompt]).predictions
            job = Job(0, prompt)
            found = read_detections(model.bbox_head, predictions, [job], [sample], model.test_cfg)
            scores.append(found[0].scores)
    return torch.cat(scores)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Turn off what this package does for inference; the frozen weights make no graph."""
    import torch

    from llmdet.ops.deformable_attention import use_implementation

    with (
        torch.enable_grad(),
        torch.backends.mkldnn.flags(enabled=False),
        use_implementation("grid_sample"),
    ):
        yield


def class_names(count: int) -> list[str]:
    """Names of two words that the tokenizer knows."""
    from llmdet.datasets.toy.models import WORDS

    pairs = [f"{first} {second}" for first in WORDS for second in WORDS]
    return pairs[:count]


if __name__ == "__main__":
    run_cli(main)
