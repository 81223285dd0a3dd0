"""How well words fit a picture, by a model that was trained to compare them (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from llmdet.chat import Pace
from llmdet.chat.local import identity_of
from llmdet.errors import ConfigError

#: Scores are kept to so many decimals, which is coarser than what batches do to them.
_DECIMALS = 3


@dataclass(frozen=True)
class Pair:
    """What is compared."""

    image: Image.Image
    text: str


@dataclass(frozen=True)
class SimilarityFilter:
    """Which texts fit their pictures well enough; it does not decide what is asked.

    Attributes:
        drop_lowest: the part of all texts that fits least, which is left out.
        min_similarity: leave out what is less similar, in place of that part.

    Raises:
        ConfigError: ``drop_lowest`` is no part.
    """

    drop_lowest: float = 0.15
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.drop_lowest < 1:
            raise ConfigError(f"drop_lowest={self.drop_lowest}: give a part from 0 to below 1")

    def least(self, found: Sequence[float]) -> float:
        """What a text must reach.

        Args:
            found: similarities of all texts.
        """
        if self.min_similarity is not None:
            return self.min_similarity
        return float(np.quantile(found, self.drop_lowest, method="lower")) if found else -1.0


class ImageTextSimilarity:
    """Cosine similarity of pictures and texts; a model of a flow.

    Texts are cut to what the model reads: 77 tokens in CLIP, 64 in SigLIP, about 50 words.

    Args:
        model: a folder, or a name in the hub's cache.
        device: for example ``"cuda"`` or ``"cpu"``.
        batch_size: pairs that are compared together.

    Raises:
        ConfigError: the model cannot be loaded, or does not compare pictures and texts.
    """

    def __init__(self, model: str, device: str, batch_size: int = 64) -> None:
        from transformers import AutoImageProcessor, AutoModel

        from llmdet.prompts.tokenizers import load_tokenizer

        try:
            self.pictures: Any = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
            loaded: Any = AutoModel.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{model}: no model like CLIP could be loaded: {error}") from None
        if not hasattr(loaded, "get_image_features") or not hasattr(loaded, "get_text_features"):
            raise ConfigError(
                f"{model}: {type(loaded).__name__} does not compare pictures with texts; "
                "use a CLIP or SigLIP"
            )
        self.words: Any = load_tokenizer(model, "--clip")
        self.name = model
        self.model: Any = loaded.to(device).eval()
        self.pace = Pace(batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """The model; of a folder also a hash of its files' names and sizes."""
        return identity_of(self.name)

    def answer(self, requests: Sequence[Pair]) -> list[float]:
        """The similarity of each pair, from -1 to 1."""
        import torch
        from torch.nn.functional import cosine_similarity

        device, dtype = self.model.device, self.model.dtype
        images = [pair.image for pair in requests]
        pixels = self.pictures(images=images, return_tensors="pt").to(device, dtype)
        texts = self.words(
            [pair.text for pair in requests],
            padding="max_length",  # as SigLIP was trained
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            seen = self.model.get_image_features(**pixels).pooler_output  # [B, C]
            said = self.model.get_text_features(**texts).pooler_output  # [B, C]
            scores = cosine_similarity(seen.float(), said.float())
        return [round(score, _DECIMALS) for score in scores.tolist()]
