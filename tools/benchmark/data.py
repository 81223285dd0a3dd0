"""Measure how quickly annotations and training samples are read.

python tools/benchmark/data.py generate /tmp/rows.jsonl --rows 1100000
python tools/benchmark/data.py rows /tmp/rows.jsonl
python tools/benchmark/data.py pipeline configs/grounding_dino_swin_t.py --num 200
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/data.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, run_cli

NOUNS = (
    "man woman child dog cat horse sheep cow bird car bus truck bicycle boat train table chair "
    "lamp window door tree flower rock river bridge street sign hat jacket shirt shoe bag umbrella "
    "ball bottle cup plate fork knife spoon bowl apple banana orange cake pizza laptop phone clock"
)
ADJECTIVES = (
    "small large red blue green yellow black white wooden metal old young bright dark striped round"
)
#: Seconds by the clock, seconds of the processor.
Times = tuple[float, float]

VERBS = (
    "stands beside",
    "leans against",
    "rests on",
    "is in front of",
    "is to the left of",
    "holds",
    "faces",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    if args.command == "generate":
        generate(args.path, args.rows, args.seed, expressions=args.expressions)
    elif args.command == "rows":
        benchmark_rows(args.path, args.reads, args.naive_rows)
    else:
        benchmark_pipeline(args.config, args.num, args.cfg_options)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="write grounding rows with long captions")
    command.add_argument("path", type=Path)
    command.add_argument("--rows", type=int, default=1_100_000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--expressions",
        action="store_true",
        help="rows of one expression and one box, as of Real-Data, in place of long captions",
    )
    command = commands.add_parser("rows", help="first open, later opens, random rows, memory")
    command.add_argument("path", type=Path, help="a JSONL file; its index is removed first")
    command.add_argument("--reads", type=int, default=200_000, help="random rows to read")
    command.add_argument(
        "--naive-rows", type=int, default=-1, help="rows the naive reader keeps (-1: all, 0: none)"
    )
    command = commands.add_parser("pipeline", help="images/s of one worker, by transform")
    command.add_argument("config", help="a config with a train_dataloader")
    command.add_argument("--num", type=int, default=200, help="samples to load")
    add_config_options(command)
    return parser.parse_args(argv)


def generate(path: Path, rows: int, seed: int, *, expressions: bool = False) -> None:
    """Write ``rows`` rows shaped like GroundingCap-1M: a sentence, its boxes, a long caption.

    With ``expressions`` each has one expression and one box, drawn from 4,096 different ones.
    """
    from tqdm import tqdm

    random_source = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        if expressions:
            ends = [json.dumps(expression_row(random_source))[1:] for _ in range(4096)]
            for number in tqdm(range(rows), unit="row", mininterval=5):
                end = ends[random_source.getrandbits(12)]
                file.write(f'{{"filename": "train/{number:012d}.jpg", {end}\n')
            return
        for number in tqdm(range(rows), unit="row", mininterval=5):
            file.write(json.dumps(generated_row(random_source, number)) + "\n")


def expression_row(random_source: random.Random) -> dict[str, Any]:
    """A row without its filename: one expression that names one box."""
    phrase = f"{noun_phrase(random_source)} that {random_source.choice(VERBS)}"
    phrase += f" {noun_phrase(random_source)}"
    box = [random_source.randint(0, 300), random_source.randint(0, 200), 620, 470]
    region = {"bbox": box, "phrase": phrase, "tokens_positive": [[0, len(phrase)]]}
    form = {"caption": phrase, "regions": [region]}
    return {"height": 480, "width": 640, "grounding": form}


def generated_row(random_source: random.Random, number: int) -> dict[str, Any]:
    width, height = random_source.choice([(640, 480), (480, 640), (500, 333), (1024, 768)])
    caption, regions = "", []
    for _ in range(random_source.randint(2, 12)):
        phrase = noun_phrase(random_source)
        start = len(caption)
        caption += phrase + ". "
        x, y = random_source.uniform(0, width - 64), random_source.uniform(0, height - 64)
        box = [x, y, random_source.uniform(x + 8, width), random_source.uniform(y + 8, height)]
        regions.append(
            {
                "bbox": [round(value, 2) for value in box],
                "phrase": phrase,
                "tokens_positive": [[start, start + len(phrase)]],
            }
        )
    sentences = [
        f"The {noun_phrase(random_source)[2:]} {random_source.choice(VERBS)} "
        f"{noun_phrase(random_source)}."
        for _ in range(random_source.randint(5, 20))
    ]
    return {
        "filename": f"train/{number:012d}.jpg",
        "height": height,
        "width": width,
        "grounding": {"caption": caption.strip(), "regions": regions},
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe the image in detail."},
            {"from": "gpt", "value": " ".join(sentences)},
        ],
        "tags": [region["phrase"].split()[-1] for region in regions],
    }


def noun_phrase(random_source: random.Random) -> str:
    adjective = random_source.choice(ADJECTIVES.split())
    return f"a {adjective} {random_source.choice(NOUNS.split())}"


def benchmark_rows(path: Path, reads: int, naive_rows: int) -> None:
    """Measure opening and reading, each in a fresh process."""
    from llmdet.datasets.jsonl_index import INDEX_SUFFIX

    path.with_name(path.name + INDEX_SUFFIX).unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")
    print(f"{'':34}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}")
    report("first open (writes the index)", open_indexed, path)
    report("later open", open_indexed, path)
    index = path.with_name(path.name + INDEX_SUFFIX)
    report("a shuffled order begins", begin_order, path)
    seconds = report(f"{reads:,} random rows", read_random, path, reads)
    print(f"index: {index.stat().st_size / 1e6:,.0f} MB")
    print(f"{reads / seconds:,.0f} random rows/s on one core, without decoding images")
    if naive_rows:
        kept = "all lines" if naive_rows < 0 else f"{naive_rows:,} lines"
        report(f"json.loads of {kept}", read_naively, path, naive_rows)


def report(title: str, task: Callable[..., Times], *args: Any) -> float:
    """Run the task in a fresh process, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, used, peak_mb = pool.apply(measured, (task, *args))
    print(f"{title:34}{seconds:10.3f}{used:10.3f}{peak_mb:10.0f}", flush=True)
    return seconds


def measured(task: Callable[..., Times], *args: Any) -> tuple[float, float, float]:
    seconds, used = task(*args)
    return seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def since(start: Times) -> Times:
    """Seconds by the clock and of the processor since a :func:`now`."""
    seconds, used = now()
    return seconds - start[0], used - start[1]


def now() -> Times:
    return time.perf_counter(), time.process_time()


def open_indexed(path: Path) -> Times:
    from llmdet.datasets.jsonl import IndexedJsonl

    start = now()
    rows = IndexedJsonl(path)
    assert len(rows.aspect_ratios) == len(rows)
    return since(start)


def begin_order(path: Path) -> Times:
    """Begin an epoch as training does; PyTorch is imported before the clock starts."""
    from llmdet.datasets.jsonl import IndexedJsonl
    from llmdet.datasets.samplers import InfiniteSampler

    rows = IndexedJsonl(path)
    start = now()
    next(iter(InfiniteSampler(rows, seed=0)))
    return since(start)


def read_random(path: Path, reads: int) -> Times:
    import numpy as np

    from llmdet.datasets.jsonl import IndexedJsonl

    rows = IndexedJsonl(path)
    order = np.random.default_rng(0).integers(len(rows), size=reads).tolist()
    start = now()
    for index in order:
        rows[index]
    return since(start)


def read_naively(path: Path, limit: int) -> Times:
    start = now()
    rows = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if len(rows) == limit:
                break
            rows.append(json.loads(line))
    return since(start)


def benchmark_pipeline(config: str, num: int, cfg_options: dict[str, Any]) -> None:
    """Load samples in this process and print the time of every transform."""
    import torch
    from mmengine.runner import set_random_seed

    from llmdet.datasets.inspection import build_dataset, leaf_datasets, spread_indices
    from llmdet.utils.build import checked_builds
    from llmdet.utils.config import load_config

    with checked_builds():
        dataset = build_dataset(load_config(config, cfg_options))
    set_random_seed(0)
    torch.set_num_threads(1)  # as in the workers of a data loader
    spent: dict[str, float] = {}
    for leaf in leaf_datasets(dataset):
        leaf.pipeline.transforms = [Timed(part, spent) for part in leaf.pipeline.transforms]
        leaf.get_data_info = Timed(leaf.get_data_info, spent)
    indices = spread_indices(len(dataset), num)
    dataset[indices[0]]  # the first sample pays for imports and caches
    spent.clear()
    start = time.perf_counter()
    for index in indices:
        dataset[index]
    seconds = time.perf_counter() - start
    print(f"{len(indices) / seconds:.1f} images/s per worker ({len(indices)} images)")
    for name, part in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{1000 * part / len(indices):10.2f} ms/image  {100 * part / seconds:5.1f}%  {name}")


class Timed:
    """A transform or method that adds up the time spent in it."""

    def __init__(self, part: Callable[..., Any], spent: dict[str, float]) -> None:
        self.part = part
        self.spent = spent
        self.name = getattr(part, "__name__", type(part).__name__)

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.part(*args)
        finally:
            passed = time.perf_counter() - start
            self.spent[self.name] = self.spent.get(self.name, 0.0) + passed


if __name__ == "__main__":
    run_cli(main)
