"""Serve a page in which pictures are asked for what words name.

    python demo/gradio_demo.py CONFIG WEIGHTS
    python demo/gradio_demo.py configs/quickstart/llmdet.py work_dirs/quickstart/latest.pth

The page is at http://127.0.0.1:7860, for this machine alone. --server-name 0.0.0.0 opens it to the
network, --share to everybody who knows its address; there is no password.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llmdet.cli.model import (
    CONFIG_HELP,
    add_device_option,
    add_score_option,
    build_detector,
    read_model,
)
from llmdet.utils.cli import add_config_options, fast_startup


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=CONFIG_HELP)
    parser.add_argument(
        "weights", nargs="?", help="checkpoint; default: the folder's, or random ones"
    )
    add_score_option(parser, "where the slider begins")
    add_device_option(parser)
    parser.add_argument(
        "--no-captions", action="store_true", help="leave the language model out of memory"
    )
    parser.add_argument("--server-port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--server-name", default="127.0.0.1", help="address to listen at")
    parser.add_argument(
        "--share", action="store_true", help="give it a public address, by gradio's servers"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("llmdet").setLevel(logging.INFO)
    with fast_startup():
        from llmdet.apis.web.examples import toy_examples
        from llmdet.apis.web.serving import Serving, running_demo

        config, weights = read_model(args)
        captions = config.model.get("lmm") is not None and not args.no_captions
        detector = build_detector(config, weights, device=args.device, captions=captions)
    serving = Serving(args.server_name, args.server_port, args.share)
    with tempfile.TemporaryDirectory(prefix="llmdet_examples_") as folder:
        examples = toy_examples(Path(folder))
        with running_demo(detector, serving, args.score_thr, examples) as page:
            page.block_thread()
