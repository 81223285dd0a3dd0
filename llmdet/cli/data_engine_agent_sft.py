"""Fine-tune a planner for Real-LOD's agent on what the agent has written.

    llmdet data-engine real-lod expressions.jsonl refined.jsonl --config strong_planner.py
    llmdet data-engine agent-sft refined.jsonl work_dirs/planner \\
        --config configs/data_engines/agent_sft.py

Plans of expressions that became right are learned. The folder then is a `model` of the planner, in
this process or behind an endpoint, whose `agent.prompts.planner` is that of the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmdet.utils.cli import add_config_options, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this engine."""
    parser.add_argument("refined", type=Path, nargs="+", help="files that real-lod has written")
    parser.add_argument("output", type=Path, help="folder for the model and its tokenizer")
    parser.add_argument("--config", type=Path, required=True, help="Python file with sft = dict()")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run the engine on a command line."""
    from llmdet.data_engines.agent_sft import finetune_planner, read_sft_settings
    from llmdet.datasets.ledger import Ledger
    from llmdet.utils.cli import refuse_existing
    from llmdet.utils.config import load_config

    refuse_existing([args.output / "config.json"], args.overwrite)
    settings = read_sft_settings(load_config(args.config, args.cfg_options).get("sft", {}))
    ledger = Ledger()
    count = finetune_planner(args.refined, args.output, settings, ledger)
    write_result(f"{args.output}: a planner that has learned from {count:,} plans")
    if ledger.counts:
        write_result(ledger.report())
