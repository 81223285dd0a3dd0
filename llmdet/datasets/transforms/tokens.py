"""What a prompt costs in tokens, and which of its characters have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmdet.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the text encoder's tokenizer from a local folder or the hub's cache.

    Raises:
        ConfigError: there is none of that name, or it gives no character offsets.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tokenizer_name={name!r}: no tokenizer could be loaded ({error}). Give the folder of "
            "the text encoder, for example a downloaded bert-base-uncased."
        ) from None
    if not tokenizer.is_fast:
        raise ConfigError(
            f"tokenizer_name={name!r} gives no character offsets; use its fast version."
        )
    return tokenizer


class TokenCounter:
    """Counts the tokens of names and remembers them; names repeat from image to image."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = tokenizer.num_special_tokens_to_add()
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        """Tokens of a name and the separator behind it, without special tokens."""
        count = self._known.get(name)
        if count is None:
            count = len(self.tokenizer.tokenize(f"{name}. "))
            self._known[name] = count
        return count


def token_offsets(text: str, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """[L, 2] int: the [start, end) characters of each token, without special tokens."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)


def characters_with_token(offsets: np.ndarray, length: int) -> np.ndarray:
    """[length] bool: which characters of a text belong to a token.

    Args:
        offsets: [L, 2] as of :func:`token_offsets`.
        length: characters of the text.
    """
    steps = np.zeros(length + 1, np.int64)
    np.add.at(steps, offsets[:, 0], 1)
    np.add.at(steps, offsets[:, 1], -1)
    return steps.cumsum()[:-1] > 0
