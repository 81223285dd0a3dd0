"""Make training data with language models.

A vision-language model of transformers on this machine:
    llmdet data-engine captions instances_train.json train2017 train.jsonl \\
        --backend transformers --model Qwen/Qwen2.5-VL-7B-Instruct
Any OpenAI-compatible server, for example vLLM on your own host:
    llmdet data-engine captions train_plain.jsonl images train.jsonl --regions 16 \\
        --backend openai --url http://localhost:8000/v1 --model my-vlm --batch-size 64

An interrupted run goes on where it stopped when the same command is given again.
`llmdet data-engine` and `python tools/data_engine.py` are the same.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from llmdet.cli import (
    data_engine_agent_sft,
    data_engine_captions,
    data_engine_grand,
    data_engine_real_data,
    data_engine_real_lod,
    data_engine_recapd,
    data_engine_rexverse,
)

#: Engine -> module with ``add_arguments(parser)`` and ``run(args)``, and what it does.
ENGINES = {
    "captions": (data_engine_captions, "long captions, and phrases of regions"),
    "real-data": (data_engine_real_data, "detections to expressions for training a detector"),
    "real-lod": (data_engine_real_lod, "an agent that mends expressions of objects"),
    "agent-sft": (data_engine_agent_sft, "a planner for that agent, fine-tuned on its plans"),
    "rexverse": (data_engine_rexverse, "conversations that name objects, from pictures alone"),
    "grand": (data_engine_grand, "objects with masks, relations and dense captions of pictures"),
    "recapd": (data_engine_recapd, "detailed descriptions of regions, as conversations"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the engine that a command line names."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    for noisy in ("httpx", "openai"):  # a line for each request
        logging.getLogger(noisy).setLevel(logging.WARNING)
    args.run(args)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engines = parser.add_subparsers(dest="engine", required=True, metavar="ENGINE")
    for name, (module, summary) in ENGINES.items():
        engine = engines.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(engine)
        engine.set_defaults(run=module.run)
    return parser.parse_args(argv)
