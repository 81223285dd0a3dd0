"""The detector of a command: the arguments that say which, and what it is to look for.

Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.utils.cli import add_config_options, fast_startup, fraction

if TYPE_CHECKING:
    from mmengine.config import Config

    from llmdet.apis import Detector

CONFIG_HELP = "config, or the folder or hub id of a saved detector"
_SAVED = "the saved detector's, or random weights"


def add_model_options(parser: argparse.ArgumentParser, weights: str = _SAVED) -> None:
    """Add ``--weights``, ``--device`` and ``--cfg-options``.

    Args:
        weights: which ones are taken by default.
    """
    parser.add_argument(
        "--weights",
        "--weight",
        help="checkpoint: .pth (ours, upstream's, MM-Grounding-DINO's), .safetensors, or a "
        f"transformers folder; default: {weights}",
    )
    add_device_option(parser)
    add_config_options(parser)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", help="cuda:0, cpu ...; default: cuda where there is one"
    )


def add_score_option(parser: argparse.ArgumentParser, use: str, *names: str) -> None:
    """Add ``--score-thr``, the score from which on a box counts.

    Args:
        use: what happens at this score.
        names: of the argument, where they are others.
    """
    names = names or ("--score-thr",)
    parser.add_argument(*names, type=fraction, default=0.3, help=f"{use} (default 0.3)")


def add_text_options(parser: argparse._ActionsContainer, default: str | None) -> None:
    """Add ``--text``, ``-c`` and ``--tokens-positive``, which :func:`read_words` reads.

    Args:
        parser: or a group of one.
        default: what is looked for without a text; None where there must be one.
    """
    parser.add_argument(
        "--text",
        "--texts",
        action="append",
        metavar="TEXT",
        required=default is None,
        help="'cat . dog .' with -c, a sentence, or '$: lvis' for the classes of a data set; given "
        "several times, each is a description that is looked for in a prompt of its own"
        + (f"; default: {default}" if default else ""),
    )
    parser.add_argument(
        "-c",
        "--custom-entities",
        action="store_true",
        help="the text is a list of class names, separated by ' . '",
    )
    parser.add_argument(
        "--tokens-positive",
        metavar="SPANS",
        help="-1: the text as a whole is one referring expression; '[[0, 7], [12, 15]]': these "
        "character spans of the text are the entities",
    )


def read_words(args: argparse.Namespace) -> dict[str, Any] | None:
    """What to look for, as arguments of ``Detector.predict``; None where there is no text.

    Raises:
        ConfigError: the arguments exclude each other, or say nothing about a text.
    """
    from llmdet.apis.questions import parse_spans, words
    from llmdet.errors import ConfigError

    spans = None if args.tokens_positive is None else parse_spans(args.tokens_positive)
    if args.text is None:
        if spans is not None or args.custom_entities:
            raise ConfigError("There is no text that -c or --tokens-positive could be about.")
        return None
    if args.custom_entities and spans is not None:
        raise ConfigError(
            "-c and --tokens-positive exclude each other: the first says that the text is a list "
            "of classes, the second which parts of a sentence to find."
        )
    if len(args.text) > 1:
        return _read_descriptions(args.text, args.custom_entities, spans)
    (text,) = args.text
    question = words(text, args.custom_entities)
    if spans is None or "classes" in question:
        return question
    return {"expression": text} if spans == -1 else {"spans": (text, spans)}


def _read_descriptions(texts: list[str], class_names: bool, spans: Any) -> dict[str, Any]:
    from llmdet.errors import ConfigError

    if class_names or spans not in (None, -1):
        raise ConfigError(
            "With several --text each is one description as a whole: -c and spans belong to a "
            "single text, such as --text 'cat . dog' -c."
        )
    return {"expression": texts}


def read_model(args: argparse.Namespace) -> tuple[Config, str | Path | None]:
    """The config, and the weights, which a saved detector brings along; nothing is built."""
    from llmdet.apis import pretrained
    from llmdet.utils.config import merge_options

    config, weights = pretrained.find_config(args.config)
    merge_options(config, args.cfg_options)
    return config, args.weights or weights


def build_detector(config: str | Config, weights: str | Path | None, **options: Any) -> Detector:
    """``Detector.from_pretrained`` without waiting for the garbage collector, and without bars."""
    with fast_startup():
        from transformers.utils import logging as transformers_logging

        from llmdet.apis import Detector

        transformers_logging.disable_progress_bar()  # of weights, which are there at once
        return Detector.from_pretrained(config, weights, **options)
