"""``llmdet COMMAND ...``, the same as ``python -m llmdet.cli COMMAND ...``.

A command is one line of the table below; its module is imported when it is called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from llmdet.utils.suggest import did_you_mean

#: Command -> module with ``main(argv)``, and what it does.
COMMANDS = {
    "train": ("llmdet.cli.train", "train, or fine-tune, the model that a config describes"),
    "test": ("llmdet.cli.test", "evaluate weights by the test set and the metrics of a config"),
    "predict": ("llmdet.cli.predict", "find in images what a text names, and draw the boxes"),
    "video": ("llmdet.cli.video", "follow in a video what a text names"),
    "label": ("llmdet.cli.label", "label pictures with a detector: training data from images"),
    "evaluate": ("llmdet.cli.evaluate", "compute a metric from a prediction file"),
    "convert checkpoint": ("llmdet.cli.convert_checkpoint", "weights from one format to another"),
    "convert data": ("llmdet.cli.convert_data", "annotations from one format to another"),
    "data-engine": ("llmdet.cli.data_engine", "make training data with language models"),
    "demo": ("llmdet.cli.demo", "serve a page in which pictures are asked for what words name"),
    "export": ("llmdet.cli.export", "write a detector as a file of ONNX or of torch.export"),
    "doctor": ("llmdet.cli.doctor", "check everything that a training needs before it begins"),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command that a command line names, and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name, rest = split_command(words)
    if name is None:
        _explain(words)
    # argparse names the program by it.
    sys.argv[0] = f"llmdet {name}"
    program = importlib.import_module(COMMANDS[name][0])
    from llmdet.utils.cli import run_cli

    run_cli(lambda: program.main(rest))


def split_command(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command that a command line begins with, of one word or two, and the rest."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS and len(words) >= count:
            return name, list(words[count:])
    return None, list(words)


def _explain(words: Sequence[str]) -> NoReturn:
    """List the commands that fit what was typed, and exit."""
    from llmdet import __version__

    first = words[0] if words else "--help"
    if first == "--version":
        sys.stdout.write(f"llmdet {__version__}\n")
        raise SystemExit(0)
    groups = {name.partition(" ")[0] for name in COMMANDS}
    unknown = not first.startswith("-") and first not in groups
    if unknown:
        sys.stderr.write(f"error: llmdet has no command {first!r}; {did_you_mean(first, groups)}\n")
        raise SystemExit(2)
    wanted = {n: s for n, (_, s) in COMMANDS.items() if first in ("-h", "--help", n.split()[0])}
    width = max(map(len, wanted), default=0)
    lines = [f"  {name:<{width}}  {summary}" for name, summary in wanted.items()]
    usage = f"usage: llmdet COMMAND [arguments]   (llmdet {__version__})"
    sys.stdout.write("\n".join([usage, "", *lines, "", "llmdet COMMAND --help says more.", ""]))
    raise SystemExit(0 if first.startswith("-") or "--help" in words or "-h" in words else 2)


if __name__ == "__main__":
    main()
