"""What LLMDet hands to the language model, which itself knows nothing of region attention."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.regions.base import RegionBatch
from llmdet.models.structures import EncoderOutput
from llmdet.models.transformer.feedforward import MLP
from llmdet.models.transformer.positions import encode_coordinates

from .decoder_layer import RegionDecoderLayer
from .region_attention import ContextHolder, RegionAttention, VisualContext

_FEATURES_PER_NUMBER = 128


class RegionAttentionAdapter:
    """Region attention in some layers of a language model.

    Args:
        every: it is put into every so manieth layer, from the first on.
        layers: numbers of the layers instead.
        settings: of :class:`RegionAttention`.
    """

    def __init__(self, every: int = 4, layers: tuple[int, ...] | None = None, **settings: Any):
        self.every, self.layers, self.settings = every, layers, settings
        self.holder = ContextHolder()
        self._reference_head: MLP | None = None
        self._dtype = torch.float32

    def install(self, lmm: LanguageModel) -> None:
        """Rebuild the layers in place, and add what encodes where tokens look.

        Raises:
            ConfigError: the language model has no layers of a kind that is known.
        """
        decoder = lmm.causal_lm.get_decoder()
        if not hasattr(decoder, "layers"):
            raise ConfigError(
                f"region_attention needs a Qwen2- or Llama-like model; {type(decoder).__name__} "
                "keeps its decoder layers elsewhere. Set region_attention=None"
            )
        eps = getattr(lmm.causal_lm.config, "rms_norm_eps", 1e-6)
        make = partial(RegionAttention, lmm.hidden_size, eps=eps, **self.settings)
        for index in self.layers or range(0, len(decoder.layers), self.every):
            decoder.layers[index] = RegionDecoderLayer(decoder.layers[index], make(), self.holder)
        width = self.settings.get("embed_dims", 256)
        # A part of the language model, so that checkpoints keep the names of its weights.
        lmm.reference_head = MLP(4 * _FEATURES_PER_NUMBER, width, width, 2)
        self._reference_head, self._dtype = lmm.reference_head, lmm.dtype

    def looking(
        self,
        encoded: EncoderOutput,
        regions: RegionBatch,
        references: Tensor,
        dialogue: DialogueBatch,
        kind: str,
    ) -> AbstractContextManager[None]:
        """A ``with`` block in which visual tokens look at the memory of their images.

        Args:
            encoded: memory of B images.
            regions: what N slots stand for.
            references: [N, V, levels, 4] cxcywh in 0..1 of the padded maps, where tokens look.
            dialogue: conversations with these slots.
            kind: of the slots.
        """
        assert self._reference_head is not None
        positions, length = dialogue.slots[kind], dialogue.input_ids.shape[1]
        sine = encode_coordinates(references[:, :, 0], _FEATURES_PER_NUMBER)
        tokens = references.shape[1]
        image, slot, slots = _slots_of_tokens(regions, tokens)
        context = VisualContext(
            memory=encoded.memory.to(self._dtype),
            pyramid=encoded.pyramid,
            references=references.flatten(0, 1),
            query_pos=self._reference_head(sine).flatten(0, 1),
            row=positions // length,
            column=positions % length,
            image=image,
            slot=slot,
            slots=slots,
            conversations=len(dialogue.input_ids),
        )
        return self.holder.use(context)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """For ``torch.utils.checkpoint``: the recomputation sees the context of the forward."""
        current = self.holder.current
        return self.holder.use(current), self.holder.use(current)


def _slots_of_tokens(regions: RegionBatch, tokens: int) -> tuple[Tensor, Tensor, int]:
    """Image and slot of each region's ``tokens`` visual tokens, and the number of slots."""
    numbers = [torch.arange(count * tokens) for count in regions.counts]
    slot = torch.cat(numbers).to(regions.image.device, non_blocking=True)
    return regions.image.repeat_interleave(tokens), slot, max(regions.counts) * tokens
