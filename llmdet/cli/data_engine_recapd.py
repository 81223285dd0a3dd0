"""Write conversations with detailed descriptions of regions (RegionGPT's RecapD).

Each picture is described as a whole, then each of its objects, seen close up, with its class and
that description as context. A CLIP leaves out what does not fit its close-up.

    llmdet data-engine recapd v3det_train.json images recapd.jsonl \\
        --clip openai/clip-vit-base-patch32 \\
        --backend openai --url http://localhost:8000/v1 --model my-vlm --batch-size 64
"""

from __future__ import annotations

import argparse

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
from llmdet.utils.cli import count, none_or_more, refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    add_annotation_arguments(parser)
    group = parser.add_argument_group("what is described")
    group.add_argument("--regions", type=count, metavar="N", help="most of a picture (20)")
    group.add_argument("--min-side", type=count, metavar="PIXELS", help="of a region (16)")
    group.add_argument("--min-global-words", type=none_or_more, help="about a whole picture (20)")
    group.add_argument("--min-words", type=none_or_more, help="about a region (10)")
    group.add_argument("--attempts", type=count, help="times a question is asked (3)")
    group.add_argument("--seed", type=int, help="draws the wordings of the questions (0)")
    group.add_argument(
        "--global-turn",
        action="store_true",
        help="conversations begin with the description of the whole picture",
    )
    add_filter_arguments(parser)
    add_model_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    refuse_existing([args.output], args.overwrite)
    from llmdet.data_engines.recapd import (
        CAPTIONER,
        RecapModels,
        RecapOutput,
        RecapSettings,
        recaption,
    )
    from llmdet.datasets.ledger import Ledger

    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    output = RecapOutput(build_filter(args), args.global_turn)
    names = ("regions", "min_side", "min_global_words", "min_words", "attempts", "seed")
    settings = RecapSettings(**given(args, *names))
    roles = build_roles(args, [CAPTIONER])
    rows = recaption(
        read_annotations(args),
        args.output,
        RecapModels(roles.models[CAPTIONER], build_similarity(args)),
        settings,
        output,
        ledger,
        run_of(args, roles),
    )
    report(args.output, rows, ledger, roles)
