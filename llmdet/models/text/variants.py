"""One embedding of a class from several ways of saying it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llmdet.prompts.types import TokenizedPrompt


def average_variants(
    embedded: Tensor, prompt: TokenizedPrompt, variants: Sequence[Tensor]
) -> Tensor:
    """Give the tokens of each class the average of its variants.

    A variant with as many tokens is averaged token by token; one with more or fewer adds the mean
    of its tokens to each. Whatever is no class, such as separators, stays.

    Args:
        embedded: [L, C] of the prompt.
        prompt: with ``variants``, in which a class that has fewer of them than others is missing.
        variants: [L_v, C] of each variant.

    Returns:
        [L, C].
    """
    averaged = embedded.clone()
    for label, tokens in enumerate(prompt.token_map):
        places = np.flatnonzero(tokens)
        parts = []
        for variant, features in zip(prompt.variants, variants, strict=True):
            rows = features[np.flatnonzero(variant.token_map[label])]
            if len(rows) == len(places):
                parts.append(rows)
            elif len(rows):
                parts.append(rows.mean(0).expand(len(places), -1))
        if parts and len(places):
            averaged[places] = torch.stack(parts).mean(0)
    return averaged
