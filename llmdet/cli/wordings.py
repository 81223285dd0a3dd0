"""The wordings of a config, in which programs write questions about objects."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmdet.prompts.object_questions import Wordings


def add_wordings_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--prompts``, which :func:`read_wordings` reads."""
    parser.add_argument(
        "--prompts",
        default="configs/_base_/prompts/objects.py",
        metavar="CONFIG",
        help="a config with the wordings as object_wordings",
    )


def read_wordings(args: argparse.Namespace) -> dict[str, Wordings]:
    """Task -> how it is asked.

    Raises:
        ConfigError: the config has no such wordings, or one of them is malformed.
    """
    from llmdet.errors import ConfigError
    from llmdet.prompts.object_questions import Wordings
    from llmdet.utils.config import load_config
    from llmdet.utils.construct import construct

    given = load_config(args.prompts).get("object_wordings")
    if not given:
        raise ConfigError(f"{args.prompts} has no object_wordings: name a config that has.")
    name = "object_wordings"
    return {task: construct(Wordings, each, f"{name}.{task}") for task, each in given.items()}
