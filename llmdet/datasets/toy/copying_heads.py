"""A language model of random weights whose attention begins as that of trained ones is.

Which candidate a phrase means is found in three steps: the phrase is gathered where the answer is
about to name a candidate, its words are compared with all candidates, and the number of the one
that is alike is said. Each step teaches nothing before the others are there, so that random weights
stay at guessing for long. Trained language models have heads that look back, compare and copy
(Olsson et al. 2022, arXiv 2209.11895); here they are written into the initial weights, much as
Trockman and Kolter 2023 (arXiv 2305.09828) do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Biases of queries and keys that make a head of the first layer look at what stands just before.
_NEARNESS = 1.2
_FIRST_WEIGHTS = 0.2  # of that layer's queries and keys, of what they were
_LIKENESS = 0.7  # of the orthogonal maps that queries and keys share behind it
_COPIED = 0.7  # of what is looked at is added


def begin_with_copying_heads(folder: str | Path, seed: int = 0) -> None:
    """Change the attention of a saved Qwen2 with as many key heads as heads, in place.

    Heads of the first layer look at the tokens just before, those behind it at what is like the
    token that looks; both copy what they look at.

    Args:
        folder: of the model.
        seed: of the random maps.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", trust_remote_code=False
    )
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            heads = layer.self_attn
            alike = _LIKENESS * _orthogonal(heads.q_proj.weight, random)
            for part in (heads.q_proj, heads.k_proj):
                if number == 0:
                    part.weight.mul_(_FIRST_WEIGHTS)
                    part.bias.fill_(_NEARNESS)
                else:
                    part.weight.copy_(alike)
            values = _orthogonal(heads.v_proj.weight, random)
            heads.v_proj.weight.copy_(values)
            heads.o_proj.weight.copy_(_COPIED * values.T)
    model.save_pretrained(folder)


def _orthogonal(like: Tensor, random: Any) -> Tensor:
    """A random orthogonal matrix of the same shape."""
    import torch

    return torch.nn.init.orthogonal_(torch.empty_like(like), generator=random)
