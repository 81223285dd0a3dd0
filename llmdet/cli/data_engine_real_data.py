"""Write expressions of detected objects, mend them, and make rows that a detector learns from.

A vision model describes each object and says a short and a long expression of it, a language model
adds more, a CLIP leaves out what does not fit, Real-LOD's agent looks at what remains.

    llmdet data-engine real-data instances_train2017.json train2017 FOLDER --from coco \\
        --clip openai/clip-vit-base-patch32 --config configs/data_engines/real_data.py

FOLDER gets expressions.jsonl, refined.jsonl (with refined_unsolved.jsonl) and real_data.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.data_engine_common import (
    add_annotation_arguments,
    add_filter_arguments,
    add_model_arguments,
    add_run_arguments,
    build_filter,
    build_roles,
    build_similarity,
    given,
    read_annotations,
    report,
    run_of,
)
from llmdet.cli.data_engine_real_lod import build_settings as build_agent
from llmdet.utils.cli import count, none_or_more

if TYPE_CHECKING:
    from llmdet.data_engines.real_data_run import RealDataSettings
    from llmdet.datasets.ledger import Ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    add_annotation_arguments(parser, "folder for all files")
    group = parser.add_argument_group("expressions")
    group.add_argument("--objects", type=count, metavar="N", help="most of a picture (5)")
    group.add_argument("--min-side", type=count, metavar="PIXELS", help="of an object (16)")
    group.add_argument(
        "--more", type=none_or_more, metavar="N", help="that the language model adds (4)"
    )
    group.add_argument("--min-words", type=none_or_more, help="of an object's description (20)")
    group.add_argument("--attempts", type=count, help="times a question is asked (3)")
    add_filter_arguments(parser)
    group = parser.add_argument_group("agent and rows")
    group.add_argument("--without-agent", action="store_true", help="take expressions as they are")
    group.add_argument("--max-cycles", type=count, help="plans that are carried out (3)")
    group.add_argument("--planner-confirms", action="store_true", default=None, help="see real-lod")
    group.add_argument("--negatives", type=none_or_more, metavar="N", help="of each object (50)")
    group.add_argument("--seed", type=int, help="draws them (0)")
    add_model_arguments(parser)
    add_run_arguments(parser, overwrites=False)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    from llmdet.data_engines.real_data_run import make_real_data

    settings = build_settings(args)
    roles = build_roles(args, settings.roles)

    def told(name: str, lines: int, ledger: Ledger) -> None:
        report(Path(name), lines, ledger, roles)

    make_real_data(
        read_annotations(args),
        args.output,
        roles.models,
        build_similarity(args),
        settings,
        max_bad_rows=args.max_bad_rows,
        run=run_of(args, roles),
        told=told,
    )


def build_settings(args: argparse.Namespace) -> RealDataSettings:
    """What is asked; an argument that is not given keeps its default."""
    from llmdet.data_engines.real_data import ExpressionSettings
    from llmdet.data_engines.real_data_run import RealDataSettings

    names = ("objects", "min_side", "more", "min_words", "attempts")
    return RealDataSettings(
        ExpressionSettings(**given(args, *names)),
        build_filter(args),
        None if args.without_agent else build_agent(args),
        **given(args, "negatives", "seed"),
    )
