"""A causal language model that reads visual tokens: frozen with LoRA and looks, or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import EncoderOutput
from llmdet.models.transformer.feedforward import MLP
from llmdet.models.transformer.positions import encode_coordinates
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import MODELS

from .causal_lm import add_lora, build_causal_lm
from .conversation import DialogueBatch
from .losses import supervised_cross_entropy
from .region_attention import ContextHolder, RegionAttention, VisualContext, image_slots

_FEATURES_PER_NUMBER = 128


@dataclass(frozen=True)
class VisualTokens:
    """The V visual tokens of R conversations; V may be 1 (a region) or many (an image)."""

    embeds: Tensor  # [R, V, H]
    counts: tuple[int, ...]  # conversations of each of the B images, in order; sum = R
    references: Tensor | None = None  # [R, V, levels, 4] cxcywh in 0..1 of the padded maps


@MODELS.register_module()
class LanguageModel(nn.Module):
    """Any causal language model of transformers, fed through ``inputs_embeds``.

    The base stays in eval mode and, unless told otherwise, frozen: trainable are then only LoRA
    maps and the region attention, both float32.

    Args:
        model: folder, hub id, or fields of a configuration; see :func:`build_causal_lm`.
        tokenizer: folder or hub id of the tokenizer; default: ``model``.
        pretrained: with False, weights are random.
        dtype: of the base, e.g. "bfloat16"; default: bfloat16 where CUDA is available,
            else float32.
        frozen: with False the base trains too, which wants ``dtype="float32"`` and no LoRA: for
            models of toy size that have no language yet, or for full fine-tuning.
        lora: ``dict(r=, alpha=, dropout=, targets=)``, or None for no LoRA.
        region_attention: ``dict(every=4)`` or ``dict(layers=(0, 4))`` and arguments of
            :class:`RegionAttention`, or None.
        checkpoint: recompute decoder layers in the backward pass instead of storing them.
    """

    def __init__(
        self,
        model: str | Mapping[str, Any],
        tokenizer: str | None = None,
        pretrained: bool = True,
        dtype: str | None = None,
        frozen: bool = True,
        lora: Mapping[str, Any] | None = None,
        region_attention: Mapping[str, Any] | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        default = "bfloat16" if torch.cuda.is_available() else "float32"
        self.dtype: torch.dtype = getattr(torch, dtype or default)
        self.causal_lm = build_causal_lm(model, pretrained=pretrained, dtype=self.dtype)
        # What llmdet.checkpoint.frozen leaves out of checkpoints: names before LoRA wraps its maps.
        self.source = model if pretrained and isinstance(model, str) else None
        self.source_names = tuple(self.causal_lm.state_dict())
        if tokenizer is None and not isinstance(model, str):
            raise ConfigError("lmm.tokenizer: name one, since lmm.model is no folder or hub id")
        self.tokenizer: Any = load_tokenizer(
            tokenizer or str(model), role="lmm.tokenizer", config=self.causal_lm.config
        )
        self.holder = ContextHolder()
        if not frozen:
            self._unfreeze(lora)
        if lora is not None:
            add_lora(self.causal_lm, **lora)
        self.reference_head: MLP | None = None
        if region_attention is not None:
            self._insert_region_attention(**region_attention)
        self.checkpoint = checkpoint
        if checkpoint:
            self.causal_lm.gradient_checkpointing_enable(
                {"use_reentrant": False, "context_fn": self.holder.checkpoint_contexts}
            )
        self.eval()

    @property
    def hidden_size(self) -> int:
        """Width H of its tokens."""
        return self.causal_lm.config.hidden_size

    def train(self, mode: bool = True) -> LanguageModel:
        """Keeps everything in eval mode: dropout would blur what the detector is taught.

        Decoder layers are told of training only so that they recompute when asked to; no part
        of theirs is.
        """
        super().train(False)
        for module in [self.causal_lm.get_decoder(), *self._layers]:
            module.training = mode and self.checkpoint
        return self

    @property
    def _layers(self) -> list[nn.Module]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        modules = self.causal_lm.modules()
        return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]

    def loss(self, dialogue: DialogueBatch, visual: VisualTokens, encoded: EncoderOutput) -> Tensor:
        """Mean cross-entropy of the supervised tokens, float32 scalar."""
        context = self._context(dialogue, visual, encoded)
        with self.holder.use(context), self._precision():
            hidden = self.causal_lm.get_decoder()(
                inputs_embeds=self.embed(dialogue, visual.embeds),
                attention_mask=dialogue.attention_mask,
                position_ids=dialogue.position_ids,
                use_cache=False,
            ).last_hidden_state
            head = self.causal_lm.get_output_embeddings()
            return supervised_cross_entropy(hidden, dialogue.supervised, dialogue.targets, head)

    @torch.no_grad()
    def generate(
        self,
        dialogue: DialogueBatch,
        visual: VisualTokens,
        encoded: EncoderOutput,
        **options: Any,
    ) -> list[str]:
        """What the model says; ``options`` are those of transformers' ``generate``."""
        context = self._context(dialogue, visual, encoded)
        with self.holder.use(context), self._precision():
            ids = self.causal_lm.generate(
                inputs_embeds=self.embed(dialogue, visual.embeds),
                attention_mask=dialogue.attention_mask,
                pad_token_id=self.pad_id,
                eos_token_id=self.tokenizer.eos_token_id,
                **options,
            )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @property
    def pad_id(self) -> int:
        """Id that fills rows up; the end of turn where the tokenizer has no padding."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def embed(self, dialogue: DialogueBatch, visual: Tensor) -> Tensor:
        """Embeddings [R, T, H]: words, visual tokens [R, V, H] in their places, zero padding."""
        words = self.causal_lm.get_input_embeddings()(dialogue.input_ids)
        words = words * dialogue.attention_mask[..., None].to(words.dtype)
        rows = torch.arange(len(words), device=words.device)[:, None]
        return words.index_put((rows, dialogue.visual), visual.to(words.dtype))

    def _unfreeze(self, lora: Mapping[str, Any] | None) -> None:
        if lora is not None or self.dtype != torch.float32:
            raise ConfigError(
                "lmm.frozen=False trains every weight of the language model: set lmm.lora=None "
                f"(it is {lora}) and lmm.dtype='float32' (it is {self.dtype})"
            )
        self.causal_lm.requires_grad_(True)

    def _insert_region_attention(
        self, every: int = 4, layers: tuple[int, ...] | None = None, **settings: Any
    ) -> None:
        from .decoder_layer import RegionDecoderLayer

        decoder = self.causal_lm.get_decoder()
        if not hasattr(decoder, "layers"):
            raise ConfigError(
                f"region_attention needs a Qwen2- or Llama-like model; {type(decoder).__name__} "
                "keeps its decoder layers elsewhere. Set region_attention=None"
            )
        eps = getattr(self.causal_lm.config, "rms_norm_eps", 1e-6)
        make = partial(RegionAttention, self.hidden_size, eps=eps, **settings)
        chosen = range(0, len(decoder.layers), every) if layers is None else layers
        for index in chosen:
            decoder.layers[index] = RegionDecoderLayer(decoder.layers[index], make(), self.holder)
        width = settings.get("embed_dims", 256)
        self.reference_head = MLP(4 * _FEATURES_PER_NUMBER, width, width, 2)

    def _context(
        self, dialogue: DialogueBatch, visual: VisualTokens, encoded: EncoderOutput
    ) -> VisualContext | None:
        if self.reference_head is None or visual.references is None:
            return None
        device = encoded.memory.device
        image, slot, slots = image_slots(visual.counts, device)
        sine = encode_coordinates(visual.references[:, :, 0], _FEATURES_PER_NUMBER)
        return VisualContext(
            memory=encoded.memory.to(self.dtype),
            pyramid=encoded.pyramid,
            references=visual.references,
            query_pos=self.reference_head(sine),
            positions=dialogue.visual,
            image=image,
            slot=slot,
            slots=slots,
        )

    def _precision(self) -> Any:
        """bf16 autocast around a bf16 base; an outer autocast never reaches a float32 one."""
        halved = self.dtype in (torch.bfloat16, torch.float16)
        device = self.causal_lm.get_input_embeddings().weight.device.type
        return torch.autocast(device, dtype=self.dtype if halved else None, enabled=halved)
