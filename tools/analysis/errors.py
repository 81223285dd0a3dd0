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
from pathlib import Path

# What runs with `python tools/analysis/errors.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.errors import LLMDetError


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt", type=Path, required=True, help="COCO or LVIS annotations")
    parser.add_argument(
        "--pred", type=Path, required=True, help="preds.jsonl, COCO results JSON or npz"
    )
    parser.add_argument("--images", type=Path, help="folder of the images; no pictures without it")
    parser.add_argument("--out", type=Path, default=Path("errors.html"))
    parser.add_argument("--classes", type=int, default=10, help="worst classes to show")
    parser.add_argument("--pictures", type=int, default=3, help="worst images of each class")
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="of detections that are counted by class and drawn (default 0.3)",
    )
    parser.add_argument(
        "--partial", action="store_true", help="accept a prediction file that lacks images"
    )
    return parser.parse_args()


def main() -> int:
    """Write the page; 2 if the input cannot be used."""
    args = parse_args()
    try:
        from llmdet.evaluation.error_page import write_error_page

        write_error_page(
            args.gt,
            args.pred,
            args.out,
            images=args.images,
            classes=args.classes,
            pictures=args.pictures,
            score_threshold=args.score_thr,
            partial=args.partial,
        )
    except LLMDetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
