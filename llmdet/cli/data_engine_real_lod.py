"""Have Real-LOD's agent look at expressions again, and mend those that do not fit their object.

    llmdet data-engine real-lod expressions.jsonl refined.jsonl --images train2017 \\
        --config configs/data_engines/real_lod.py

What is found right, as it was or mended, is in refined.jsonl; the rest with its cause in
refined_unsolved.jsonl. Both keep the records, and every answer in their history.
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
from llmdet.utils.cli import count, refuse_existing

if TYPE_CHECKING:
    from llmdet.data_engines.real_lod import AgentSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    parser.add_argument("records", type=Path, help="expressions: JSON Lines, or a JSON array")
    parser.add_argument("output", type=Path, help="JSONL file to write")
    parser.add_argument("--images", type=Path, help="folder of the pictures (that of the records)")
    group = parser.add_argument_group("how the agent works")
    group.add_argument("--max-cycles", type=count, help="plans that are carried out (3)")
    group.add_argument("--attempts", type=count, help="times a question is asked (3)")
    group.add_argument(
        "--planner-confirms",
        action="store_true",
        default=None,
        help="also ask the planner about what the reflector finds right, as the paper does",
    )
    add_model_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    from llmdet.data_engines.real_lod import ROLES
    from llmdet.data_engines.real_lod_run import refine_records, unsolved_path
    from llmdet.datasets.ledger import Ledger

    unsolved = unsolved_path(args.output)
    refuse_existing([args.output, unsolved], args.overwrite)
    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    roles = build_roles(args, ROLES)
    rows = refine_records(
        args.records,
        args.images or args.records.parent,
        args.output,
        roles.models,
        build_settings(args),
        ledger,
        run_of(args, roles),
    )
    report(args.output, rows, ledger, roles)


def build_settings(args: argparse.Namespace) -> AgentSettings:
    """How the agent works: by the config's ``agent``, and by what the command line says."""
    from llmdet.data_engines.real_lod_run import read_settings
    from llmdet.utils.config import load_config

    config = {} if args.config is None else load_config(args.config).get("agent", {})
    return read_settings({**config, **given(args, "max_cycles", "attempts", "planner_confirms")})
