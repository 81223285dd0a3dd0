"""Text encoder and language model of the toy set: ``python -m llmdet.testing.toy_models FOLDER``.

Both have random weights and vocabularies of the toy set's words, so that the quickstart and the
configs that fine-tune a tiny detector need no download.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES
from llmdet.errors import DataError
from llmdet.testing.tokenizers import WORDS, tiny_bert

logger = logging.getLogger(__name__)

#: Captions that the language model's vocabulary is learned from; more of them add no new word.
_CORPUS_ROWS = 500


def write_toy_models(folder: str | Path) -> None:
    """Write ``bert/`` and ``language_model/`` beside the toy set, unless they are there.

    Args:
        folder: the toy set, as :func:`llmdet.datasets.toy.generate` wrote it.

    Raises:
        DataError: the folder holds no toy set.
    """
    folder = Path(folder)
    if not (folder / "bert" / "config.json").is_file():
        words = dict.fromkeys((*WORDS, *COLOURS, *SHAPES, *SHAPES.values()))
        tiny_bert(folder / "bert", words)
        logger.info("wrote the text encoder %s", folder / "bert")
    if not (folder / "language_model" / "config.json").is_file():
        from llmdet.testing.language_models import CORPUS, tiny_qwen

        # Half as wide it learns the captions more slowly than the quickstart lasts.
        tiny_qwen(
            folder / "language_model",
            corpus=[*CORPUS, *_captions(folder)],
            hidden_size=128,
            intermediate_size=256,
            initializer_range=0.09,
        )
        logger.info("wrote the language model %s", folder / "language_model")


def _captions(folder: Path) -> Iterator[str]:
    annotations = folder / "annotations" / "train_grounding.jsonl"
    if not annotations.is_file():
        raise DataError(
            f"{folder} holds no toy set; make it with: python -m llmdet.datasets.toy {folder}"
        )
    with annotations.open(encoding="utf-8") as stream:
        for row in map(json.loads, islice(stream, _CORPUS_ROWS)):
            yield row["grounding"]["caption"]
            yield from (turn["value"] for turn in row["conversations"])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m llmdet.testing.toy_models", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", help="the toy set, for example data/toy")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_toy_models(args.folder)


if __name__ == "__main__":
    from llmdet.utils.cli import run_cli

    run_cli(main)
