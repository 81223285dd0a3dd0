"""Count what annotations contain: boxes per image, phrase and caption lengths, class frequency.

python tools/analysis/stats.py train.jsonl --tokenizer bert-base-uncased --out work_dirs/stats
python tools/analysis/stats.py instances_train.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# What runs with `python tools/analysis/stats.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="annotation file, or folder (voc, yolo)")
    parser.add_argument("--from", dest="source", help="format, where the name does not tell it")
    parser.add_argument("--images", type=Path, help="folder of the pictures (openimages)")
    parser.add_argument("--classes", type=Path, help="class names, where the file lacks them")
    parser.add_argument("--split", help="which part of a voc or yolo folder")
    parser.add_argument(
        "--tokenizer", help="folder or name of the text encoder, to count tokens of sentences"
    )
    parser.add_argument("--out", type=Path, help="folder for stats.json and stats.png")
    parser.add_argument(
        "--max-bad-rows", type=int, default=0, metavar="N", help="broken records to skip and count"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions, open_source
    from llmdet.datasets.ledger import Ledger
    from llmdet.datasets.statistics import collect, plot

    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    options = ReadOptions(args.images, args.classes, split=args.split)
    source = open_source(args.annotations, args.source, options, ledger)
    samples = tqdm(source.samples, total=source.total, unit="image")
    statistics = collect(samples, _token_counter(args.tokenizer) if args.tokenizer else None)
    print(statistics.table())
    if ledger.counts:
        print(ledger.report())
    if args.out:
        plot(statistics, args.out / "stats.png")
        text = json.dumps(statistics.as_dict(), indent=1, ensure_ascii=False)
        (args.out / "stats.json").write_text(text, encoding="utf-8")
        print(f"{args.out}: stats.json, stats.png")


def _token_counter(name: str) -> Callable[[str], int]:
    from llmdet.prompts import load_tokenizer

    tokenizer = load_tokenizer(name, role="--tokenizer")
    return lambda text: len(tokenizer(text, truncation=False)["input_ids"])


if __name__ == "__main__":
    run_cli(main)
