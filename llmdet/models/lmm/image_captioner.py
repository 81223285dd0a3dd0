"""The language model describes the whole image from encoder features (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.quirks import Quirks
from llmdet.models.transformer.boxes import xyxy_to_cxcywh

from .connector import VisualConnector
from .conversation import ConversationBuilder
from .grids import grid_cells, resample_level
from .language_model import LanguageModel, VisualTokens
from .losses import anchor
from .view import DetectorView, scaled_references

#: The prompt of the released models.
PROMPT = "Describe the image in detail."
Caption = Mapping[str, str]  # prompt, answer


class ImageCaptioner(nn.Module):
    """Image tokens, the caption loss on them, and captions out.

    Args:
        lmm: the language model; not a part of this module, only its sizes and tokenizer are used.
        in_dims: width C of encoder memory.
        grids: (pyramid level, cells along a side) of each map the tokens are read from, in
            order; level -2 is the one of stride 32 ("p5"), -3 that of stride 16 ("p4").
        tokens: "memory", or "queries": the last layer's object queries in place of grids.
        separator: a learned token between two grids.
        look: image tokens too go through the language model's region attention.
        max_length: most tokens of a conversation, image tokens included.
        loss_weight: factor of the loss.
        system: system turn of the conversation, None for none.
        quirks: see :class:`Quirks`.
    """

    def __init__(
        self,
        lmm: LanguageModel,
        in_dims: int = 256,
        grids: Sequence[tuple[int, int]] = ((-2, 20), (-3, 27)),
        tokens: str = "memory",
        separator: bool = True,
        look: bool = False,
        max_length: int = 1600,
        loss_weight: float = 1.0,
        system: str | None = "You are a helpful assistant.",
        quirks: Quirks | None = None,
    ) -> None:
        super().__init__()
        if tokens not in ("memory", "queries"):
            raise ConfigError(f"image_captioner.tokens='{tokens}' is unknown; memory or queries")
        self.from_queries = tokens == "queries"
        self.grids = () if self.from_queries else tuple((level, size) for level, size in grids)
        self.look, self.loss_weight, self.quirks = look, loss_weight, quirks or Quirks()
        self.connector = VisualConnector(in_dims, lmm.hidden_size)
        self.separator: nn.Parameter | None = None
        if separator and len(self.grids) > 1:
            self.separator = nn.Parameter(torch.zeros(1, lmm.hidden_size))
            nn.init.normal_(self.separator, std=0.02)
        self.conversations = ConversationBuilder(lmm.tokenizer, max_length, system=system)

    def loss(
        self, lmm: LanguageModel, view: DetectorView, captions: Sequence[Caption | None]
    ) -> Tensor:
        """Cross-entropy of the captions' tokens, weighted.

        Args:
            captions: per image the prompt and the answer, or None for an image without.

        Returns:
            Scalar; zero with gradient zero for every trainable parameter where no image has a
            caption.
        """
        given = [index for index, caption in enumerate(captions) if caption is not None]
        if not given:
            return anchor([*self.parameters(), *lmm.parameters()])
        visual = self.tokens(view, lmm, given)
        dialogue = self.conversations.training_batch(
            [caption["prompt"] for caption in captions if caption is not None],
            [caption["answer"] for caption in captions if caption is not None],
            visual.embeds.shape[1],
        )
        dialogue = dialogue.to(visual.embeds.device)
        return self.loss_weight * lmm.loss(dialogue, visual, view.encoded)

    def describe(
        self, lmm: LanguageModel, view: DetectorView, prompt: str = PROMPT, **options: Any
    ) -> list[str]:
        """One description for each of the B images; ``options`` go to ``generate``."""
        batch = len(view.encoded.memory)
        visual = self.tokens(view, lmm, range(batch))
        dialogue = self.conversations.prompt_batch([prompt] * batch, visual.embeds.shape[1])
        return lmm.generate(dialogue.to(visual.embeds.device), visual, view.encoded, **options)

    def tokens(self, view: DetectorView, lmm: LanguageModel, images: Sequence[int]) -> VisualTokens:
        """Image tokens [len(images), V, H] of some images of the batch."""
        embeds, boxes = self._from_queries(view) if self.from_queries else self._from_grids(view)
        batch = len(view.encoded.memory)
        index = torch.tensor(list(images)).to(embeds.device, non_blocking=True)
        references = None
        if self.look and lmm.reference_head is not None:
            references = self._references(view, boxes)[index]
        counts = tuple(int(image in set(images)) for image in range(batch))
        return VisualTokens(embeds[index], counts, references)

    def _from_grids(self, view: DetectorView) -> tuple[Tensor, Tensor]:
        memory, pyramid = view.encoded.memory, view.encoded.pyramid
        embeds: list[Tensor] = []
        boxes: list[Tensor] = []
        for level, size in self.grids:
            if embeds and self.separator is not None:
                embeds.append(self.separator.expand(len(memory), -1, -1).to(embeds[0].dtype))
                boxes.append(boxes[0].new_tensor([[0.0, 0.0, 1.0, 1.0]]))
            cells = grid_cells(size, memory.device)
            features = resample_level(memory, pyramid, level, size)
            embeds.append(self.connector(features, cells))
            boxes.append(cells)
        return torch.cat(embeds, 1), torch.cat(boxes).expand(len(memory), -1, -1)

    def _from_queries(self, view: DetectorView) -> tuple[Tensor, Tensor]:
        return self.connector(view.hidden_states[-1], view.corners), view.corners

    def _references(self, view: DetectorView, boxes: Tensor) -> Tensor:
        levels = len(view.encoded.pyramid.shapes)
        if self.quirks.image_cross_attention_xyxy:
            return boxes[:, :, None].expand(-1, -1, levels, -1)
        return scaled_references(xyxy_to_cxcywh(boxes), view.encoded.pyramid.valid_ratios)
