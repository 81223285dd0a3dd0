"""Sampling of which each request has a seed of its own, so that batches do not decide answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from llmdet.chat.messages import ChatRequest

#: Only so many of the most likely tokens are drawn from, the default of transformers.
TOP_TOKENS = 50


class SeededSampling(LogitsProcessor):
    """Makes greedy search sample: row by row, at the request's temperature, by the request's seed.

    The most likely token under Gumbel noise is a draw from softmax(scores / temperature) (Gumbel
    1954; "Gumbel-max trick"), and the noise of a row depends on nothing but its request.

    Args:
        requests: of the rows, in their order; those of temperature 0 stay greedy.
        device: where scores are.
    """

    def __init__(self, requests: Sequence[ChatRequest], device: torch.device) -> None:
        self.temperatures = [request.temperature for request in requests]
        self.generators = [
            torch.Generator(device).manual_seed(seed_of(request)) for request in requests
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] whose largest value is at the token that was drawn."""
        drawn = scores.clone()
        rows = zip(self.temperatures, self.generators, strict=True)
        for row, (temperature, generator) in enumerate(rows):
            if temperature:
                drawn[row] = _perturbed(scores[row], temperature, generator)
        return drawn


def _perturbed(
    scores: torch.Tensor, temperature: float, generator: torch.Generator
) -> torch.Tensor:
    scores = scores.float()
    uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    least = scores.topk(min(TOP_TOKENS, scores.numel())).values[-1]
    return (scores / temperature + noise).masked_fill(scores < least, -torch.inf)


def seed_of(request: ChatRequest) -> int:
    """A number that depends on the seed, the words and the pictures of a request."""
    digest = hashlib.blake2b(str(request.seed).encode(), digest_size=7)
    for message in request.messages:
        digest.update(f"\0{message.role}\0{message.text}\0".encode())
        for image in message.images:
            digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "big")
