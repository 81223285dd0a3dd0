"""How the cost of detection and description grows: measures, and draws a plot of each.

    python tools/benchmark/scaling.py --out docs/images                # about five minutes
    python tools/benchmark/scaling.py --out docs/images --only regions,caption_length
    python tools/benchmark/scaling.py --out docs/images --draw         # from the file alone

The detector is Swin-T's at its real size, the language model a Qwen2 of 0.5 billion parameters;
weights are random, of which the cost does not depend. OUT gets scaling.json, which holds what was
measured with machine and versions, and scaling_NAME.svg for each plot. The fastest of the repeats
counts. On a CPU the seconds are those of the processor, all threads together: what else the
machine does is not in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/scaling.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.published import QWEN_05B
from llmdet.utils.cli import count, run_cli

BASE = Path(__file__).resolve().parents[2] / "configs/_base_/models"


@dataclass(frozen=True)
class Sizes:
    """What is measured; heights and widths in pixels."""

    images: tuple[tuple[int, int], ...] = ((320, 533), (480, 800), (640, 1067), (800, 1333))
    classes_a_prompt: int = 40
    image: tuple[int, int] = (480, 640)  # of all plots but the first
    classes: tuple[int, ...] = (1, 40, 80, 160, 320)
    regions: tuple[int, ...] = (1, 4, 16, 48)
    tokens_a_region: int = 12
    tokens: tuple[int, ...] = (1, 32, 64, 128)


#: So small that the whole takes seconds; the times mean nothing.
SHORT = Sizes(((96, 128), (128, 160)), 2, (96, 128), (1, 4), (1, 2), 2, (1, 3))


@dataclass(frozen=True)
class Plot:
    """Axes of one plot, and what measures its lines."""

    title: str
    x: str
    measure: Callable[[Bench], dict[str, list[tuple[float, float]]]]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the file and the plots")
    parser.add_argument(
        "--only", default=",".join(PLOTS), help="plots, with commas between them (default: all)"
    )
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw the file")
    parser.add_argument("--repeats", type=count, default=2, help="timed runs (default 2)")
    parser.add_argument(
        "--dtype", default="bfloat16", help="of the language model (default bfloat16)"
    )
    parser.add_argument("--short", action="store_true", help="tiny sizes, whose times mean nothing")
    parser.add_argument("--threads", type=count, help="of torch; default: as torch chooses")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one plot after the other; each is drawn before the next begins."""
    args = parse_args(argv)
    names = chosen(args.only)
    path = args.out / "scaling.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.draw:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(args, folder)
            for name in names:
                lines = PLOTS[name].measure(bench)
                results[name] = {"machine": bench.machine(), "seconds": lines}
                path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                print(table(name, results[name]), flush=True)
                draw(name, results[name], args.out)
    for name in [name for name in names if args.draw and name in results]:
        draw(name, results[name], args.out)
    return 0


def chosen(names: str) -> list[str]:
    """The plots of those names.

    Raises:
        ConfigError: there is no plot of a name.
    """
    from llmdet.errors import ConfigError
    from llmdet.utils.suggest import did_you_mean

    for name in names.split(","):
        if name not in PLOTS:
            raise ConfigError(f"--only: no plot {name!r}; {did_you_mean(name, list(PLOTS))}")
    return names.split(",")


class Bench:
    """Models of the sizes to measure, built when they are first needed, and a clock."""

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        import torch

        import llmdet.models  # noqa: F401  registers the classes
        from llmdet.datasets.toy.models import tiny_bert, tiny_qwen

        if args.threads:
            torch.set_num_threads(args.threads)
        self.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.sizes = SHORT if args.short else Sizes()
        self.short, self.repeats, self.dtype = args.short, args.repeats, args.dtype
        self.bert = str(tiny_bert(f"{folder}/bert"))
        self.qwen = str(tiny_qwen(f"{folder}/language_model"))
        self._models: dict[bool, Any] = {}

    def model(self, language: bool = False) -> Any:
        """The detector, with or without its language model, weights random."""
        if language not in self._models:
            self._models.clear()  # one at a time in memory
            self._models[language] = self._build(language)
        return self._models[language]

    def _build(self, language: bool) -> Any:
        import torch
        from mmengine.config import Config
        from transformers import BertConfig, BertModel

        from llmdet.registry import MODELS

        name, kind = ("tiny", "tiny") if self.short else ("swin_t", "p4p5")
        settings = Config.fromfile(BASE / f"grounding_dino_{name}.py").model
        settings.language_model.name = self.bert
        if not self.short:
            body = BertModel(BertConfig(vocab_size=30522), add_pooling_layer=False)
            body.save_pretrained(self.bert)
        settings.test_cfg.update(chunked_size=self.sizes.classes_a_prompt, limit_per="image")
        if language:
            parts = Config.fromfile(BASE / f"lmm_{kind}.py")
            captioners = {key: parts[key] for key in ("image_captioner", "region_captioner")}
            lmm = {"model": self.qwen, "tokenizer": self.qwen, "pretrained": False}
            if not self.short:
                lmm |= {"model": QWEN_05B, "dtype": self.dtype}
            settings.update(type="LLMDet", lmm={**parts.lmm, **lmm}, **captioners)
        torch.manual_seed(0)
        return MODELS.build(settings).to(self.device).eval().requires_grad_(False)

    def picture(self, height: int, width: int) -> Any:
        """A [1, 3, H, W] image of noise."""
        import torch

        return torch.randn(1, 3, height, width, device=self.device)

    def seconds(self, *runs: Callable[[], Any], repeats: int | None = None) -> list[float]:
        """Of each run the fastest of the repeats; they take turns."""
        best = [float("inf")] * len(runs)
        for _ in range(repeats or self.repeats):
            for number, run in enumerate(runs):
                start = self._now()
                run()
                best[number] = min(best[number], self._now() - start)
        return best

    def machine(self) -> dict[str, Any]:
        """Where and when the seconds were taken."""
        import os

        import torch
        import transformers

        cuda = self.device.startswith("cuda")
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else processor(),
            "clock": "wall" if cuda else "processor, all threads together",
            "threads": torch.get_num_threads(),
            "load": None if cuda else round(os.getloadavg()[0], 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _now(self) -> float:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


Lines = dict[str, list[tuple[float, float]]]  # label -> (x, seconds)


def measure_image_size(bench: Bench) -> Lines:
    """Detection of one prompt's classes in images of several sizes."""
    model, settings = bench.model(), bench.model().test_cfg
    lines: Lines = {"float32": [], "bfloat16": []}
    names = class_names(bench.sizes.classes_a_prompt)
    model.detect(*sample(bench.picture(*bench.sizes.images[0]), names))  # warms up
    for height, width in bench.sizes.images:
        picture = bench.picture(height, width)

        def run(dtype: str, picture: Any = picture) -> None:
            model.test_cfg = dataclasses.replace(settings, dtype=dtype)
            model.detect(*sample(picture, names))

        spent = bench.seconds(lambda: run("float32"), lambda: run("bfloat16"))
        for line, seconds in zip(lines.values(), spent, strict=True):
            line.append((height * width / 1e6, seconds))
    model.test_cfg = settings
    return lines


def measure_classes(bench: Bench) -> Lines:
    """Detection of more and more classes; the first image has its text encoded, later ones not."""
    model, picture = bench.model(), bench.picture(*bench.sizes.image)
    lines: Lines = {"first image": [], "later images, text remembered": []}
    model.detect(*sample(picture, class_names(1)))
    for number in bench.sizes.classes:
        names = class_names(number)

        def first(names: Sequence[str] = names) -> None:
            model.language_model.train().eval()  # forgets encoded prompts
            model.detect(*sample(picture, names))

        def later(names: Sequence[str] = names) -> None:
            model.detect(*sample(picture, names))

        for line, seconds in zip(lines.values(), bench.seconds(first, later), strict=True):
            line.append((number, seconds))
    return lines


def measure_regions(bench: Bench) -> Lines:
    """Description of more and more boxes, after detection."""
    import torch

    height, width = bench.sizes.image
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(max(bench.sizes.regions), 2, generator=generator) / 2
    boxes = torch.cat([corners, corners + 0.3], 1) * torch.tensor([width, height] * 2)
    length = bench.sizes.tokens_a_region
    describe = describer(bench, "regions")
    describe(length, boxes[:1])
    points = []
    for number in bench.sizes.regions:
        (seconds,) = bench.seconds(lambda boxes=boxes[:number]: describe(length, boxes))
        points.append((number, seconds))
    return {f"phrases of {length} tokens": points}


def measure_caption_length(bench: Bench) -> Lines:
    """Description of an image by captions of several lengths, after detection."""
    describe = describer(bench, "image")
    points = []
    describe(1)
    for length in bench.sizes.tokens:
        # One run: reading the image's tokens, which is the largest part, is repeated as it is.
        (seconds,) = bench.seconds(lambda length=length: describe(length), repeats=1)
        points.append((length, seconds))
    return {"one image": points}


PLOTS = {
    "image_size": Plot("Detection: image size", "megapixels", measure_image_size),
    "classes": Plot("Detection: number of classes", "classes", measure_classes),
    "regions": Plot("Description: number of regions", "regions", measure_regions),
    "caption_length": Plot(
        "Description of an image: caption length", "tokens of the caption", measure_caption_length
    ),
}


def sample(picture: Any, names: Sequence[str]) -> tuple[Any, list[Any]]:
    """Arguments of ``detect``."""
    from mmdet.structures import DetDataSample

    size = (picture.shape[-2], picture.shape[-1])
    info = {"text": list(names), "img_shape": size, "scale_factor": (1.0, 1.0)}
    return picture, [DetDataSample(metainfo=info)]


def describer(bench: Bench, kind: str) -> Callable[..., None]:
    """A function of the number of tokens (and boxes) that describes one image."""
    model = bench.model(language=True)
    picture, samples = sample(bench.picture(*bench.sizes.image), class_names(1))
    features = model.detect(picture, samples, keep_features=True).features

    def describe(length: int, boxes: Any = None) -> None:
        model.describe(
            picture,
            samples,
            {kind},
            None if boxes is None else [boxes],
            features=features,
            min_new_tokens=length,
            max_new_tokens=length,
        )

    return describe


def class_names(number: int) -> list[str]:
    """Names of two words that the tokenizer knows."""
    from llmdet.datasets.toy.models import WORDS

    return [f"{first} {second}" for first in WORDS for second in WORDS][:number]


def processor() -> str:
    """The model of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(name: str, result: dict[str, Any]) -> str:
    """Seconds as a table of Markdown, with what one more step along x costs between the ends."""
    plot, lines = PLOTS[name], result["seconds"]
    columns = [f"{x:.3g}" for x, _ in next(iter(lines.values()))]
    rows = [f"| {plot.x} | {' | '.join(columns)} | each more |", "|---" * (len(columns) + 2) + "|"]
    for label, points in lines.items():
        (first, low), (last, high) = points[0], points[-1]
        slope = (high - low) / (last - first)
        cells = [f"{seconds:.2f}" for _, seconds in points]
        rows.append(f"| {label} | {' | '.join(cells)} | {slope:.3f} |")
    return "\n".join(["", f"{plot.title}, seconds", "", *rows])


def draw(name: str, result: dict[str, Any], out: Path) -> None:
    """Draw one plot."""
    import matplotlib

    matplotlib.use("svg")
    # Equal numbers give an equal file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "llmdet", "svg.fonttype": "none"})
    from matplotlib import pyplot

    plot = PLOTS[name]
    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for label, points in result["seconds"].items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    clock = result["machine"]["clock"].partition(",")[0]
    axes.set(title=plot.title, xlabel=plot.x, ylabel=f"{clock} seconds", xlim=0, ylim=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / f"scaling_{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    run_cli(main)
