"""Write conversations that name objects, out of pictures alone (ChatRex's Rexverse).

A vision model says a sentence about each picture, a detector finds what it names, the vision model
describes each box, and a language model judges whether it is what was looked for, rewrites the
description to an expression, and asks and answers questions about the picture.

    llmdet data-engine rexverse photos rexverse.jsonl \\
        --detector configs/grounding_dino_swin_t.py --weights tiny.pth \\
        --backend openai --url http://localhost:8000/v1 --model my-vlm --batch-size 64
"""

from __future__ import annotations

import argparse
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
from llmdet.cli.wordings import add_wordings_option, read_wordings
from llmdet.utils.cli import count, fraction, none_or_more, refuse_existing

if TYPE_CHECKING:
    from llmdet.data_engines.rexverse import RexverseSettings
    from llmdet.data_engines.rexverse_rows import RexverseOutput

TASKS = ("detect", "refer", "name", "phrase", "describe", "caption", "converse")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    add_picture_arguments(parser, "JSONL file to write")
    add_box_arguments(parser)
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--min-picture-side",
        type=count,
        metavar="PIXELS",
        help="of a picture (224)",
    )
    group.add_argument(
        "--screen",
        action="store_true",
        default=None,
        help="leave out pictures that the captioner takes for mere text or finds indecent",
    )
    group.add_argument("--phrases", type=count, metavar="N", help="most of a caption (10)")
    group.add_argument("--overlap", type=fraction, metavar="IOU", help="of one thing's boxes (0.8)")
    group.add_argument("--regions", type=count, metavar="N", help="most of a picture (20)")
    group.add_argument("--min-side", type=count, metavar="PIXELS", help="of a region (16)")
    group.add_argument("--min-words", type=none_or_more, help="about a region (6)")
    group.add_argument("--least-words", type=none_or_more, help="of an expression (5)")
    group.add_argument("--most-words", type=none_or_more, help="of an expression (10)")
    group.add_argument(
        "--dialogue", type=none_or_more, metavar="N", help="questions of a conversation (3)"
    )
    group.add_argument("--attempts", type=count, help="times a question is asked (3)")
    group = parser.add_argument_group("what is written")
    group.add_argument("--tasks", nargs="+", choices=TASKS, help="kinds of rows (all)")
    group.add_argument("--turns", type=count, help="most questions of a row (10)")
    group.add_argument("--seed", type=int, help="draws the wordings of the questions (0)")
    add_wordings_option(group)
    add_model_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    refuse_existing([args.output], args.overwrite)
    from llmdet.data_engines.rexverse import make_rexverse
    from llmdet.datasets.ledger import Ledger

    pictures, settings, output = read_pictures(args), build_settings(args), build_output(args)
    roles = build_roles(args, settings.roles)
    (boxes,) = build_boxes(args)
    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    what = pictures, args.output, roles.models, boxes, settings, output
    rows = make_rexverse(*what, ledger, run_of(args, roles))
    report(args.output, rows, ledger, roles)


def build_settings(args: argparse.Namespace) -> RexverseSettings:
    """What is asked; an argument that is not given keeps its default."""
    from llmdet.data_engines.rexverse import RexverseSettings

    names = ("min_picture_side", "screen", "phrases", "overlap", "regions", "min_side", "attempts")
    words = ("min_words", "least_words", "most_words", "dialogue")
    return RexverseSettings(**given(args, *names, *words))


def build_output(args: argparse.Namespace) -> RexverseOutput:
    """How it is written, in the wordings of a config."""
    from llmdet.data_engines.rexverse_rows import RexverseOutput

    return RexverseOutput(read_wordings(args), **given(args, "tasks", "turns", "seed"))
