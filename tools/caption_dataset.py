"""Write long captions, and phrases of regions, for any annotated data set.

A vision-language model of transformers on this machine:
    python tools/caption_dataset.py instances_train.json train.jsonl --images train2017 \
        --backend transformers --model Qwen/Qwen2.5-VL-7B-Instruct
Any OpenAI-compatible server, for example vLLM on your own host:
    python tools/caption_dataset.py train_plain.jsonl train.jsonl --images images \
        --backend openai --url http://localhost:8000/v1 --model my-vlm --regions 16

An interrupted run goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# What runs with `python tools/caption_dataset.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmdet.utils.cli import refuse_existing, run_cli, write_result

if TYPE_CHECKING:
    from llmdet.chat import ChatModel
    from llmdet.data_engines.captions import CaptionSettings


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="annotation file, or folder (voc, yolo)")
    parser.add_argument("output", type=Path, help="JSONL file to write")
    parser.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--backend", choices=("transformers", "openai"), required=True)
    parser.add_argument("--model", required=True, help="folder or name of the model")
    parser.add_argument("--url", help="base url of the server (openai), ending in /v1")
    parser.add_argument("--device", default="cuda", help="where the model runs (transformers)")
    parser.add_argument("--from", dest="source", help="format, where the name does not tell it")
    parser.add_argument("--classes", type=Path, help="class names, where the file lacks them")
    parser.add_argument("--split", help="which part of a voc or yolo folder")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    _add_question_arguments(parser)
    args = parser.parse_args(argv)
    if args.backend == "openai" and not args.url:
        parser.error("--backend openai needs --url")
    if args.batch_size < 1 or args.attempts < 1:
        parser.error("--batch-size and --attempts must be at least 1")
    return args


def _add_question_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regions",
        type=int,
        default=0,
        metavar="N",
        help="also describe the N largest boxes of each image; rows are then in grounding form",
    )
    parser.add_argument("--caption-prompt", help="asked of every image; {names}: its classes")
    parser.add_argument("--phrase-prompt", help="asked of every region; {name}: its class")
    parser.add_argument("--min-words", type=int, help="shorter captions are asked for again")
    parser.add_argument("--attempts", type=int, default=3, help="times a question is asked")
    parser.add_argument("--batch-size", type=int, default=8, help="images at a time")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest answer")
    parser.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="skip and count up to N broken rows or pictures",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    refuse_existing([args.output], args.overwrite)
    from tqdm import tqdm

    from llmdet.data_engines.captions import Annotations, caption_dataset
    from llmdet.data_engines.steps import Pace
    from llmdet.datasets.formats import ReadOptions
    from llmdet.datasets.ledger import Ledger

    def progress(done: int, total: int | None) -> Callable[[int], object]:
        return tqdm(initial=done, total=total, unit="image").update

    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    options = ReadOptions(args.images, args.classes, split=args.split)
    local = args.backend == "transformers"
    count = caption_dataset(
        Annotations(args.annotations, args.images, args.source, options),
        args.output,
        build_chat(args),
        build_settings(args),
        ledger,
        # A model in this process answers a batch at once, a server many requests at a time.
        Pace(batch_size=args.batch_size) if local else Pace(1, workers=args.batch_size),
        progress,
    )
    write_result(f"{args.output}: {count:,} rows")
    if ledger.counts:
        write_result(ledger.report())


def build_chat(args: argparse.Namespace) -> ChatModel:
    """The model that answers."""
    from llmdet.chat.endpoint import EndpointChat
    from llmdet.chat.local import LocalChat

    if args.backend == "openai":
        return EndpointChat(args.url, args.model, args.max_new_tokens, concurrency=args.batch_size)
    return LocalChat(args.model, args.device, args.max_new_tokens)


def build_settings(args: argparse.Namespace) -> CaptionSettings:
    """What is asked; an argument that is not given keeps its default."""
    from llmdet.data_engines.captions import CaptionSettings

    names = ("caption_prompt", "phrase_prompt", "regions", "attempts", "min_words")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return CaptionSettings(**given)


if __name__ == "__main__":
    run_cli(main)
