"""Language models that say what a test wants to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from llmdet.models.language.language_model import LanguageModel


class _Saying:
    """Allows the next token of a text alone: a processor of logits."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[input_ids.shape[1]]] = 0
        return forced


@contextmanager
def saying(*texts: str | Sequence[str]) -> Iterator[None]:
    """A ``with`` block in which every language model says these answers in turn.

    One that is given in pieces is tokenised piece by piece: marks can be spelled so. All that
    generation does besides is as it is: the states are those of a model that said so.
    """
    left, generate = list(texts), LanguageModel.generate

    def forced(self: LanguageModel, dialogue: Any, features: Any, **options: Any) -> Any:
        text = left.pop(0)
        pieces = [text] if isinstance(text, str) else list(text)
        tokens = self.tokenizer(pieces, add_special_tokens=False).input_ids
        ids = [token for piece in tokens for token in piece]
        said = _Saying([*ids, self.tokenizer.eos_token_id])
        given = options.pop("logits_processor", [])
        options["max_new_tokens"] = len(said.ids)
        return generate(self, dialogue, features, logits_processor=[*given, said], **options)

    LanguageModel.generate = forced  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        LanguageModel.generate = generate  # type: ignore[method-assign]
