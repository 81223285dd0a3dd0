"""Tokens that an output adds to a language model, with rows of their own that train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.errors import ConfigError


class ExtendedEmbedding(nn.Module):
    """A language model's embedding, some ids of which read rows that train.

    The base keeps its parameter and its name ``weight``; the new rows are ``added``.

    Args:
        base: gives the rows of all other ids.
        added: [A, H] float32.
        first: the first of the A consecutive new ids.
    """

    def __init__(self, base: nn.Embedding, added: nn.Parameter, first: int) -> None:
        super().__init__()
        self.weight, self.added, self.first = base.weight, added, first

    def forward(self, ids: Tensor) -> Tensor:
        """Rows [..., H] of ids [...], in the type of the base."""
        new = ids - self.first
        is_new = (new >= 0) & (new < len(self.added))
        rows = F.embedding(ids.masked_fill(is_new, 0), self.weight)
        added = F.embedding(new.clamp(0, len(self.added) - 1), self.added)
        return torch.where(is_new[..., None], added.to(rows.dtype), rows)


class ExtendedHead(nn.Module):
    """A language model's vocabulary map, some columns of which come from rows that train.

    Args:
        base: gives all other logits.
        added: [A, H] float32.
        first: the first of the A consecutive new ids.
    """

    def __init__(self, base: nn.Linear, added: nn.Parameter, first: int) -> None:
        super().__init__()
        self.weight, self.bias, self.added, self.first = base.weight, base.bias, added, first

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., max(V, first + A)] of hidden states [..., H]."""
        logits = F.linear(hidden, self.weight, self.bias)
        added = F.linear(hidden, self.added.to(hidden.dtype))
        behind = logits[..., self.first + len(self.added) :]
        return torch.cat([logits[..., : self.first], added, behind], -1)


def were_added(tokenizer: Any, tokens: Sequence[str]) -> bool:
    """Whether a tokenizer was saved with all of these tokens, none of which ends or pads text."""
    named = {value for value in tokenizer.special_tokens_map.values() if isinstance(value, str)}
    return set(tokens) <= set(tokenizer.get_added_vocab()).difference(named)


def add_vocabulary(
    causal_lm: Any, tokenizer: Any, tokens: Sequence[str], spread: float = 0.0
) -> None:
    """Let a language model read and say new tokens, in place.

    Their rows begin around the mean of all others and train, whether or not the rest does. Where
    embedding and head share weights the new rows are shared too.

    Args:
        causal_lm: of transformers.
        tokenizer: its own.
        tokens: the new ones.
        spread: standard deviation around the mean, in that of the other rows, of random numbers
            that are the same for equal tokens; 0 begins all alike.

    Raises:
        ConfigError: a token is already in the vocabulary, or the tokenizer knows more ids than
            the model has rows.
    """
    known = set(tokenizer.get_vocab())
    repeated = sorted(known.intersection(tokens))
    if repeated or len(set(tokens)) < len(tokens):
        raise ConfigError(
            f"added tokens {list(tokens)} must be new and differ; known already: {repeated}"
        )
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    first = len(tokenizer)
    if first > len(embedding.weight):
        raise ConfigError(
            f"the tokenizer '{tokenizer.name_or_path}' knows {first} tokens and the language model "
            f"{len(embedding.weight)}: they do not belong together"
        )
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    read = _first_rows(embedding.weight[:first], len(tokens), spread)
    tied = head.weight is embedding.weight
    said = read if tied else _first_rows(head.weight[:first], len(tokens), spread)
    causal_lm.set_input_embeddings(ExtendedEmbedding(embedding, read, first))
    causal_lm.set_output_embeddings(ExtendedHead(head, said, first))
    causal_lm.config.vocab_size = max(causal_lm.config.vocab_size, first + len(tokens))


def _first_rows(weight: Tensor, count: int, spread: float) -> nn.Parameter:
    """Rows [count, H] float32 around the mean of others [V, H]."""
    known = weight.detach().float()
    rows = known.mean(0).expand(count, -1).clone()
    if spread:
        numbers = torch.Generator().manual_seed(0)
        noise = torch.randn(rows.shape, generator=numbers, device="cpu")
        rows += spread * known.std(0) * noise.to(rows.device)
    return nn.Parameter(rows)
