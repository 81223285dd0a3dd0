"""One embedding of a class from several ways of saying it."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from llmdet.prompts.types import TokenizedPrompt


def average_variants(embedded: Tensor, prompt: TokenizedPrompt, variants: Tensor) -> Tensor:
    """Give the tokens of each class the average of its variants.

    A variant with as many tokens is averaged token by token; one with more or fewer adds the mean
    of its tokens to each. Whatever is no class, such as separators, stays.

    Args:
        embedded: [L, C] of the prompt.
        prompt: with V ``variants``, in which a class that has fewer of them is missing.
        variants: [V, L_v, C] of the variants, padded.

    Returns:
        [L, C].
    """
    read, written, shares = _contributions(prompt, variants.shape[1])
    places, sources = torch.from_numpy(np.stack([written, read])).to(
        embedded.device, non_blocking=True
    )
    weights = torch.from_numpy(shares).to(embedded.device, non_blocking=True)
    rows = variants.flatten(0, 1)[sources].float() * weights[:, None]
    averaged = embedded.float().index_fill(0, places, 0.0).index_add(0, places, rows)
    return averaged.to(embedded.dtype)


def _contributions(
    prompt: TokenizedPrompt, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which token of which variant goes where, and with what weight.

    Args:
        prompt: with ``variants``.
        length: tokens of each variant, padding included.

    Returns:
        [M] int64 in V * length, [M] int64 in L, and [M] float32; the weights of a place sum to 1.
    """
    read: list[int] = []
    written: list[int] = []
    shares: list[float] = []
    for label, tokens in enumerate(prompt.token_map):
        places = np.flatnonzero(tokens).tolist()
        ways = [
            (number * length + np.flatnonzero(variant.token_map[label])).tolist()
            for number, variant in enumerate(prompt.variants)
        ]
        ways = [way for way in ways if way]
        for way in ways:
            paired = len(way) == len(places)
            pairs = zip(way, places, strict=True) if paired else product(way, places)
            share = 1 / len(ways) if paired else 1 / (len(ways) * len(way))
            for source, place in pairs:
                read.append(source)
                written.append(place)
                shares.append(share)
    return np.array(read, np.int64), np.array(written, np.int64), np.array(shares, np.float32)
