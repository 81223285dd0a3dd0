"""Annotate pictures as GranD does: objects with masks, relations, dense captions, context.

Level 1 finds objects, with masks of SAM, attributes and depth; level 2 writes short captions and
relations; level 3 a dense caption, of which stays what boxes support; level 4 context.

    llmdet data-engine grand photos FOLDER --detector configs/grounding_dino_swin_t.py \\
        --weights tiny.pth --sam facebook/sam-vit-huge --depth Intel/dpt-large \\
        --config configs/data_engines/grand_endpoints.py

FOLDER gets level_1.jsonl to level_4.jsonl, and annotations/ with a JSON for each picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.data_engine_common import (
    add_model_arguments,
    add_run_arguments,
    build_roles,
    given,
    report,
    run_of,
)
from llmdet.cli.data_engine_pictures import (
    add_box_arguments,
    add_picture_arguments,
    build_boxes,
    read_pictures,
)
from llmdet.utils.cli import count, fraction, none_or_more

if TYPE_CHECKING:
    from llmdet.data_engines.grand.models import DepthOrder, SamMasks
    from llmdet.data_engines.grand.settings import GrandSettings
    from llmdet.datasets.ledger import Ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    add_picture_arguments(parser, "folder for all files")
    parser.add_argument(
        "--up-to", type=int, choices=(1, 2, 3, 4), default=4, help="the last level (4)"
    )
    add_box_arguments(parser, several=True)
    _add_measures(parser)
    _add_limits(parser)
    add_model_arguments(parser)
    add_run_arguments(parser, overwrites=False)


def _add_measures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("masks and depth")
    masks = group.add_mutually_exclusive_group(required=True)
    masks.add_argument("--sam", help="SAM or SAM 2: folder, hub id, or .pth of segment_anything")
    masks.add_argument("--no-masks", action="store_true", help="objects have boxes alone")
    depth = group.add_mutually_exclusive_group(required=True)
    depth.add_argument("--depth", metavar="MODEL", help="depth estimation: folder or hub id")
    depth.add_argument("--no-depth", action="store_true", help="objects have no depth")
    group.add_argument(
        "--metric-depth", action="store_true", help="what it estimates grows with the distance"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("objects (level 1)")
    group.add_argument("--classes", type=Path, help="text file: names that are always looked for")
    group.add_argument(
        "--tags", type=none_or_more, metavar="N", help="names that are seen, at most (30)"
    )
    group.add_argument("--overlap", type=fraction, metavar="IOU", help="of one box's copies (0.9)")
    group.add_argument("--agree", type=count, metavar="N", help="detectors of an object (1)")
    group.add_argument("--regions", type=count, metavar="N", help="most of a picture (40)")
    group.add_argument("--min-side", type=count, metavar="PIXELS", help="of an object (16)")
    group = parser.add_argument_group("captions, relations, context (levels 2 to 4)")
    group.add_argument(
        "--captions", type=none_or_more, metavar="N", help="short ones of a picture (2)"
    )
    group.add_argument("--relations", type=none_or_more, metavar="N", help="most of a picture (8)")
    group.add_argument("--dense-words", type=none_or_more, help="least of a dense caption (25)")
    group.add_argument(
        "--rewrites",
        type=none_or_more,
        metavar="N",
        help="of a dense caption that names too much (1)",
    )
    group.add_argument("--context-words", type=none_or_more, help="least of the context (40)")
    group.add_argument(
        "--affordances", type=none_or_more, metavar="N", help="most of a picture (8)"
    )
    group.add_argument("--attempts", type=count, help="times a question is asked (3)")


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    from llmdet.data_engines.grand.run import GrandModels, make_grand
    from llmdet.data_engines.grand.settings import roles_up_to

    pictures, settings = read_pictures(args), build_settings(args)
    roles = build_roles(args, roles_up_to(args.up_to))
    models = GrandModels(roles.models, build_boxes(args), build_masks(args), build_depth(args))

    def told(name: str, lines: int, ledger: Ledger) -> None:
        report(Path(name), lines, ledger, roles)

    make_grand(
        pictures,
        args.output,
        models,
        settings,
        up_to=args.up_to,
        max_bad_rows=args.max_bad_rows,
        run=run_of(args, roles),
        told=told,
    )


def build_settings(args: argparse.Namespace) -> GrandSettings:
    """What is asked; an argument that is not given keeps its default."""
    from llmdet.data_engines.grand.settings import (
        CaptionSettings,
        ContextSettings,
        DescriptionSettings,
        GrandSettings,
        ObjectSettings,
    )
    from llmdet.datasets.formats.samples import class_names

    attempts = given(args, "attempts")
    found = given(args, "tags", "overlap", "agree", "regions", "min_side")
    if args.classes is not None:
        found["classes"] = tuple(class_names(args.classes))
    dense = {} if args.dense_words is None else {"min_words": args.dense_words}
    context = {} if args.context_words is None else {"min_words": args.context_words}
    return GrandSettings(
        ObjectSettings(**found, **attempts),
        CaptionSettings(**given(args, "captions", "relations"), **attempts),
        DescriptionSettings(**dense, **given(args, "rewrites"), **attempts),
        ContextSettings(**context, **given(args, "affordances"), **attempts),
    )


def build_masks(args: argparse.Namespace) -> SamMasks | None:
    """What makes masks of boxes; None makes none."""
    if args.sam is None:
        return None
    from llmdet.apis.box_masks import BoxMasks
    from llmdet.data_engines.grand.models import SamMasks
    from llmdet.data_engines.identities import hash_of_files

    return SamMasks(BoxMasks(args.sam, args.device), {"sam": hash_of_files(args.sam)})


def build_depth(args: argparse.Namespace) -> DepthOrder | None:
    """What measures depth; None measures none."""
    if args.depth is None:
        return None
    from llmdet.data_engines.grand.models import DepthOrder

    return DepthOrder(args.depth, args.device, metric=args.metric_depth)
