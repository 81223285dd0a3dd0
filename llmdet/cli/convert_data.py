"""Convert annotations between formats, or check them.

python tools/convert/data.py instances_train.json train.jsonl --from coco --to odvg
python tools/convert/data.py VOC2007 train.jsonl --from voc --to grounding --split trainval
python tools/convert/data.py train.jsonl instances.json --from odvg --to coco
python tools/convert/data.py instances.json FOLDER --from coco --to yolo --split val --images val/
python tools/convert/data.py train.jsonl --check --images images/
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from llmdet.utils.cli import refuse_existing, write_result

SOURCES = (
    "coco",
    "lvis",
    "voc",
    "yolo",
    "odvg",
    "grounding",
    "refcoco",
    "flickr30k",
    "v3det",
    "objects365",
    "openimages",
)
TARGETS = ("grounding", "odvg", "coco", "yolo", "voc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return check(args) if args.check else convert(args)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="annotation file, or folder (voc, yolo)")
    parser.add_argument("output", type=Path, nargs="?", help="file, or folder (voc, yolo)")
    parser.add_argument("--from", dest="source", choices=SOURCES, help="format of the input")
    parser.add_argument(
        "--to",
        dest="target",
        choices=TARGETS,
        help="grounding: JSONL with a text per image; odvg: JSONL with labels and a label map; "
        "coco: one JSON document; yolo, voc: a folder with a label file for each picture",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    parser.add_argument("--check", action="store_true", help="only validate the input")
    parser.add_argument(
        "--images", type=Path, help="folder of the pictures: gives sizes, checked by --check"
    )
    parser.add_argument(
        "--picture-folders",
        nargs="+",
        default=[],
        metavar="DIR",
        help="further folders that file names may lead to, as picture_folders of the data set",
    )
    parser.add_argument("--classes", type=Path, help="class names: one a line, or a label map")
    parser.add_argument("--split", help="which part of a voc or yolo folder is read, or written")
    parser.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="skip and count up to N broken records instead of stopping at the first",
    )
    args = parser.parse_args(argv)
    if not args.check and not (args.output and args.source and args.target):
        parser.error("give OUTPUT, --from and --to, or --check")
    return args


def convert(args: argparse.Namespace) -> int:
    """Write the annotations in another format; returns the exit code."""
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions, written_file
    from llmdet.datasets.formats import convert as convert_annotations
    from llmdet.datasets.ledger import Ledger

    refuse_existing([written_file(args.output, args.target, args.split)], args.overwrite)
    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    count = convert_annotations(
        args.input,
        args.output,
        args.source,
        args.target,
        options=ReadOptions(args.images, args.classes, split=args.split),
        ledger=ledger,
        progress=lambda samples, total: tqdm(samples, total=total, unit="image"),
    )
    write_result(f"{args.output}: {count:,} images")
    if ledger.counts:
        write_result(ledger.report())
    return 0


def check(args: argparse.Namespace) -> int:
    """Print what is wrong or odd; returns the exit code, 1 where something must be fixed."""
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions, open_source
    from llmdet.datasets.validate import ReportLedger, ValidationReport, validate

    report = ValidationReport()
    options = ReadOptions(args.images, args.classes, split=args.split)
    source = open_source(args.input, args.source, options, ReportLedger(report))
    source.samples = iter(tqdm(source.samples, total=source.total, unit="image"))
    validate(source, report, args.images, picture_folders=args.picture_folders)
    write_result(report.text())
    write_result(f"{args.input}: " + ("ready" if report.ok else "must be fixed"))
    return 0 if report.ok else 1
