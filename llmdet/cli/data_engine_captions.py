"""Write long captions, and phrases of regions, for any annotated data set.

A sample whose caption is not accepted after all attempts is written without one, and counted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llmdet.cli.data_engine_common import (
    add_annotation_arguments,
    add_model_arguments,
    add_run_arguments,
    build_roles,
    given,
    read_annotations,
    report,
    run_of,
)
from llmdet.utils.cli import count, none_or_more, refuse_existing

if TYPE_CHECKING:
    from llmdet.data_engines.captions import CaptionSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    add_annotation_arguments(parser)
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--regions",
        type=none_or_more,
        default=0,
        metavar="N",
        help="also describe the N largest boxes of each image; rows are then in grounding form",
    )
    group.add_argument("--caption-prompt", help="asked of every image; {names}: its classes")
    group.add_argument("--phrase-prompt", help="asked of every region; {name}: its class")
    group.add_argument(
        "--min-words", type=none_or_more, help="shorter captions are asked for again"
    )
    group.add_argument("--attempts", type=count, default=3, help="times a question is asked (3)")
    add_model_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    refuse_existing([args.output], args.overwrite)
    from llmdet.data_engines.captions import ROLE, caption_dataset
    from llmdet.datasets.ledger import Ledger

    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    roles = build_roles(args, [ROLE])
    rows = caption_dataset(
        read_annotations(args),
        args.output,
        roles.models[ROLE],
        build_settings(args),
        ledger,
        run_of(args, roles),
    )
    report(args.output, rows, ledger, roles)


def build_settings(args: argparse.Namespace) -> CaptionSettings:
    """What is asked; an argument that is not given keeps its default."""
    from llmdet.data_engines.captions import CaptionSettings

    names = ("caption_prompt", "phrase_prompt", "regions", "attempts", "min_words")
    return CaptionSettings(**given(args, *names))
