"""Token maps of several prompts as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmdet.prompts.types import TokenizedPrompt


def stack_token_maps(prompts: Sequence[TokenizedPrompt], length: int = 0) -> Tensor:
    """Which tokens stand for which entity, for a batch of prompts.

    Args:
        prompts: B prompts.
        length: least L.

    Returns:
        [B, K, L] bool on the CPU; K is the largest number of entities, L the longest prompt in
        tokens. Row k holds the tokens of entity k, never [CLS], [SEP] or padding. Rows of entities
        without spans (labels that a training sample does not use) and beyond a prompt's entities
        are empty.
    """
    entities = max(len(prompt.token_map) for prompt in prompts)
    length = max(length, *(len(prompt.ids) for prompt in prompts))
    stacked = torch.zeros(len(prompts), entities, length, dtype=torch.bool)
    for row, prompt in zip(stacked, prompts, strict=True):
        row[: len(prompt.token_map), : len(prompt.ids)] = torch.from_numpy(prompt.token_map)
    return stacked
