"""Command line of the toy set: ``python -m llmdet.datasets.toy OUT``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from llmdet.datasets.toy.conversations import write_region_questions
from llmdet.datasets.toy.masks import write_mask_questions
from llmdet.datasets.toy.models import (
    write_mask_language_model,
    write_region_language_model,
    write_retrieval_language_model,
    write_toy_models,
)
from llmdet.datasets.toy.retrieval import write_retrieval_rows
from llmdet.datasets.toy.writer import ToySettings, generate
from llmdet.utils.cli import run_cli


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the toy set."""
    defaults = ToySettings()
    parser = argparse.ArgumentParser(
        prog="python -m llmdet.datasets.toy",
        description="Generate the toy set: coloured shapes with boxes, phrases and captions, "
        "and a text encoder and a language model for it, with random weights.",
    )
    parser.add_argument("out", help="folder to write, for example data/toy")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--train", type=int, default=defaults.train, help="training images")
    parser.add_argument(
        "--val", type=int, default=defaults.val, help="images of each validation split"
    )
    parser.add_argument("--size", type=int, default=defaults.size, help="side of an image, pixels")
    parser.add_argument(
        "--no-photographs",
        action="store_true",
        help="grey backgrounds alone, where scikit-image is not installed",
    )
    parser.add_argument(
        "--regions",
        action="store_true",
        help="also questions about regions and candidates with their answers, and language models "
        "for them",
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="also conversations in which words, indices and regions have masks, with those of "
        "--regions, and a language model for both",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = ToySettings(args.seed, args.train, args.val, args.size, not args.no_photographs)
    folder = generate(args.out, settings)
    write_toy_models(folder)
    if args.regions:
        write_region_questions(folder)
        write_region_language_model(folder)
        write_retrieval_rows(folder, folder / "annotations" / "train_retrieval.jsonl")
        write_retrieval_language_model(folder)
    if args.masks:
        write_region_questions(folder)
        write_mask_questions(folder)
        write_mask_language_model(folder)


if __name__ == "__main__":
    run_cli(main)
