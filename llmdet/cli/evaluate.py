"""Evaluate a prediction file. Needs neither a model nor a GPU.

Example:
    python tools/evaluate.py --metric lvis-fixed-ap --gt lvis_v1_minival.json --pred preds.jsonl
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from llmdet.evaluation.suite import (
    RUNNERS,
    describe_metrics,
    format_table,
    run_metric,
)
from llmdet.utils.cli import write_notice, write_result


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"metrics and their options:\n{describe_metrics()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--metric", required=True, metavar="NAME", help=", ".join(RUNNERS))
    add_file_options(parser)
    parser.add_argument("--json", metavar="OUT", help="also write all numbers to this file")
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="NAME=VALUE", help="protocol options"
    )
    return parser.parse_args(argv)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--gt``, ``--pred`` and ``--partial``: what is compared with what."""
    parser.add_argument("--gt", required=True, metavar="GT", help="annotations")
    parser.add_argument(
        "--pred",
        metavar="PRED",
        help="predictions: the benchmark's own format, npz, COCO results JSON or preds.jsonl",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept a prediction file that lacks images: nothing counts as found in them",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a metric."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = [*args.options, "partial=true"] if args.partial else args.options
    report = run_metric(args.metric, args.gt, args.pred, options)
    if report.prompts:
        write_notice(f"predicted with {report.prompts}")
    if report.protocol:
        write_notice(report.protocol)
    write_result(format_table(report.values))
    if args.json:
        report.write(args.json)
    return 0
