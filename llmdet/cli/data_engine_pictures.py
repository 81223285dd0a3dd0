"""What the engines of bare pictures share: their arguments, and what finds boxes in pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.model import CONFIG_HELP, build_detector
from llmdet.utils.cli import add_config_options, count, fraction

if TYPE_CHECKING:
    from llmdet.data_engines.detections import BoxSource
    from llmdet.data_engines.pictures import PictureSet


def add_picture_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Add what such an engine reads and writes."""
    parser.add_argument(
        "images", help="folder of pictures, a picture, or a text file that lists pictures"
    )
    parser.add_argument("output", type=Path, help=output)


def read_pictures(args: argparse.Namespace) -> PictureSet:
    """The pictures that a command line names; none is opened.

    Raises:
        DataError: there are none.
    """
    from llmdet.apis.images import expand
    from llmdet.data_engines.pictures import PictureSet

    return PictureSet.of([Path(str(source)) for source in expand(args.images)])


def add_box_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add what finds boxes: a detector, or a file of what one has found.

    Args:
        parser: of an engine.
        several: whether there may be both.
    """
    group = parser.add_argument_group("boxes")
    source = group if several else group.add_mutually_exclusive_group()
    source.add_argument("--detector", metavar="CONFIG", help=f"what finds them: {CONFIG_HELP}")
    source.add_argument(
        "--boxes",
        type=Path,
        metavar="PREDICTIONS",
        help="boxes that tools/test.py --out wrote",
    )
    group.add_argument("--weights", help="checkpoint of the detector")
    group.add_argument(
        "--boxes-of", type=Path, metavar="JSON", help="COCO json that was tested for --boxes"
    )
    group.add_argument("--threshold", type=fraction, default=0.3, help="least score (0.3)")
    group.add_argument("--detector-batch-size", type=count, default=1, help="pictures at once (1)")
    add_config_options(parser)


def build_boxes(args: argparse.Namespace) -> list[BoxSource]:
    """What finds boxes, by a command line: a detector first.

    Raises:
        ConfigError: arguments do not go together, or the detector reads no words.
        DataError: the file of boxes cannot be read.
    """
    from llmdet.data_engines.detections import FiledBoxes
    from llmdet.errors import ConfigError

    if args.detector is None and args.boxes is None:
        raise ConfigError("Name what finds boxes: --detector, or --boxes with --boxes-of.")
    if (args.boxes is None) != (args.boxes_of is None):
        raise ConfigError("--boxes goes with --boxes-of, the COCO json whose images they are in.")
    filed = [FiledBoxes(args.boxes, args.boxes_of, args.threshold)] if args.boxes else []
    return [*([] if args.detector is None else [_build_detector(args)]), *filed]


def _build_detector(args: argparse.Namespace) -> BoxSource:
    from llmdet.apis import pretrained
    from llmdet.data_engines.detections import DetectedBoxes
    from llmdet.data_engines.identities import hash_of_config, hash_of_files
    from llmdet.errors import ConfigError
    from llmdet.utils.config import merge_options

    config, weights = pretrained.find_config(args.detector)
    merge_options(config, args.cfg_options)
    weights = args.weights or weights
    identity = {"detector": hash_of_config(config), "weights": hash_of_files(weights)}
    detector = build_detector(config, weights, device=args.device)
    if not detector.reads_words:
        raise ConfigError(
            f"{args.detector} proposes objects and reads no words: name a detector that does."
        )
    return DetectedBoxes(detector, identity, args.threshold, args.detector_batch_size)
