"""Show where a detector fails, as one page of HTML.

python tools/analysis/errors.py --gt instances_val2017.json --pred preds.jsonl \
    --images data/coco/val2017 --out errors.html

The page has what average precision loses to each kind of error (after TIDE), the classes that do
worst, the names that are confused with how alike they read, and the worst images of each of these
classes. It stands alone: pictures are inside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# What runs with `python tools/analysis/errors.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.cli.evaluate import add_file_options
from llmdet.cli.model import add_score_option
from llmdet.errors import ConfigError
from llmdet.utils.cli import count, run_cli, write_result


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_file_options(parser)
    parser.add_argument("--images", type=Path, help="folder of the images; no pictures without it")
    parser.add_argument("--out", type=Path, default=Path("errors.html"))
    parser.add_argument("--classes", type=count, default=10, help="worst classes to show")
    parser.add_argument("--pictures", type=count, default=3, help="worst images of each class")
    add_score_option(parser, "of detections that are counted by class and drawn")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    args = parse_args(argv)
    if args.pred is None:
        raise ConfigError("errors are those of detections: name their file with --pred")
    from llmdet.evaluation.error_page import write_error_page

    write_error_page(
        Path(args.gt),
        Path(args.pred),
        args.out,
        images=args.images,
        classes=args.classes,
        pictures=args.pictures,
        score_threshold=args.score_thr,
        partial=args.partial,
    )
    write_result(f"wrote {args.out}")


if __name__ == "__main__":
    run_cli(main)
