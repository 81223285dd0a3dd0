"""The errors that LLMDet raises for its users' mistakes.

Each message names the value and the place at fault and what to do about it, so that a
traceback is not needed to mend the input.
"""


class LLMDetError(Exception):
    """Base of every error that LLMDet raises on purpose."""


class ConfigError(LLMDetError, ValueError):
    """A setting in a config or on the command line is missing, unknown or contradictory."""


class DataError(LLMDetError, ValueError):
    """An annotation, an image, a prompt or a prediction file cannot be used as it is."""


class CheckpointError(LLMDetError, RuntimeError):
    """A checkpoint cannot be read, is unsafe to read, or does not fit the model."""
