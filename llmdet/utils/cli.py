"""What all command-line programs share: how errors are shown and config options parsed.

Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import gc
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import DictAction

from llmdet.errors import ConfigError, LLMDetError, sentence_of

#: Exit code for a mistake in the user's input, as argparse uses it.
USAGE_ERROR = 2
_LEGIBLE = 1200  # characters of an error
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's ``main`` and exit with its code (None counts as 0).

    An :class:`~llmdet.errors.LLMDetError` ends the program with its sentence on stderr and exit
    code 2, and so do a file that the system refuses and a full disk; any other exception is a
    defect and keeps its traceback.
    """
    try:
        code = main() or 0
    except LLMDetError as error:
        _report(sentence_of(error))
        code = USAGE_ERROR
    except BrokenPipeError:
        # Whoever read our output has seen enough; closing it at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141  # 128 + SIGPIPE, as shells report it
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{str(stop) or 'stopped by Ctrl-C'}\n")
        code = 130  # 128 + SIGINT, as shells report it
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        where = "" if error.filename is None else f"'{error.filename}': "
        _report(f"{where}{error.strerror}")
        code = USAGE_ERROR
    raise SystemExit(code)


def _report(sentence: str) -> None:
    """Write a sentence, which may quote a stranger: shortened, with control characters shown."""
    rank = os.environ.get("RANK")
    if len(sentence) > _LEGIBLE:
        sentence = f"{sentence[: _LEGIBLE // 2]} [...] {sentence[-_LEGIBLE // 2 :]}"
    sentence = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in sentence)
    sys.stderr.write(f"{f'[rank {rank}] ' if rank else ''}error: {sentence}\n")


def write_result(text: str) -> None:
    """Write what a program was asked for to the standard output, as lines of their own."""
    sys.stdout.write(f"{text}\n")


def write_notice(text: str) -> None:
    """Write what a person is to know to the standard error, as lines of their own."""
    sys.stderr.write(f"{text}\n")


def refuse_existing(files: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace what exists, unless that was asked for.

    Raises:
        ConfigError: a file exists, and ``overwrite`` is not given.
    """
    for file in files:
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} exists: name another file, or say --overwrite.")


@contextmanager
def fast_startup() -> Iterator[None]:
    """Import and build without garbage collection, which takes a third of a start.

    Imports make a million objects, none of them garbage. What is alive at the end stays for as
    long as the process: later collections, the one at its exit included, pass over it. Within
    another such block the outer one decides when collection begins again.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def fraction(text: str) -> float:
    """An argument from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"it is a number from 0 to 1, not {text}")
    return value


def positive(text: str) -> float:
    """A finite argument above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"it is a number above 0, not {text}")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it is a whole number of at least 1, not {text}")
    return value


def none_or_more(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"it is a whole number of at least 0, not {text}")
    return value


class ConfigOptions(DictAction):
    """Argparse action of ``--cfg-options key=value ...``; refuses what has no ``=``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for value in values or ():
            if "=" not in value:
                parser.error(f"{option_string} takes key=value pairs, got {value!r}")
        super().__call__(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, the way to change a config from the command line."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="change settings of the config, e.g. optim_wrapper.optimizer.lr=5e-5; lists as "
        "key='[a,b]'",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and the ``--local-rank`` that launchers append."""
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="who started the processes; dist_train.sh and dist_test.sh pass 'pytorch'",
    )
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=None, help=argparse.SUPPRESS
    )
