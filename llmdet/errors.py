"""The errors that LLMDet raises for its users' mistakes.

Each message names the value and the place at fault and what to do about it, so that a
traceback is not needed to correct the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LLMDetError(Exception):
    """Base of every error that LLMDet raises on purpose."""


class ConfigError(LLMDetError, ValueError):
    """A setting in a config or on the command line is missing, unknown or contradictory."""


class DataError(LLMDetError, ValueError):
    """An annotation, an image, a prompt or a prediction file cannot be used as it is."""


class StorageError(LLMDetError, OSError):
    """An object behind a URL cannot be read now: its server does not answer, or refuses."""


class CheckpointError(LLMDetError, RuntimeError):
    """A checkpoint cannot be read, is unsafe to read, or does not fit the model."""


class DivergenceError(LLMDetError, ArithmeticError):
    """A training run has a loss or a weight that is infinite or no number."""


class TrainingInterrupted(KeyboardInterrupt):
    """A training was stopped by its user; says what was saved and how to continue."""


def sentence_of(error: LLMDetError) -> str:
    """The message of an error, without the traceback that a data loader's worker puts around it."""
    text = str(error)
    if text.startswith("Caught "):
        text = text.rstrip().rpartition(f".{type(error).__name__}: ")[2]
    return text


@contextmanager
def naming(where: object) -> Iterator[None]:
    """Put the file or image at fault in front of every :class:`DataError` raised inside.

    Args:
        where: what to name; None leaves errors as they are.
    """
    try:
        yield
    except DataError as error:
        if where is None:
            raise
        raise DataError(f"{where}: {error}") from error
