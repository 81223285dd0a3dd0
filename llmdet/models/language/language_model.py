"""A causal language model that reads features of images: frozen, with LoRA, or trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.ops.linear import use_fast_linear
from llmdet.prompts.conversation_tokens import pad_id
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import MODELS

from .causal_lm import add_lora, build_causal_lm
from .dialogue import DialogueBatch, fill_slots
from .losses import supervised_cross_entropy
from .row_groups import group_rows
from .vocabulary import add_vocabulary, were_added

#: Most logits that are held at once while probabilities are read.
_LOGITS_AT_ONCE = 2**26


@dataclass(frozen=True)
class Generated:
    """What a language model said in R conversations, G new tokens each at most."""

    texts: list[str]
    ids: Tensor  # [R, G] int64, the pad id behind the end
    probabilities: Tensor  # [R, G] float32, what the model gave each token; 1 behind the end
    hidden: Tensor  # [R, G, H], the state from which each token was said
    asked: DialogueBatch | None = None  # the conversations; fewer than R where each has several


def default_dtype() -> str:
    """Of a language model's weights, where its config does not say."""
    return "bfloat16" if torch.cuda.is_available() else "float32"


class Adapter(Protocol):
    """A system's change of a language model's layers; see ``systems/llmdet/region_attention``."""

    def install(self, lmm: LanguageModel) -> None:
        """Change the layers in place."""

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """For ``torch.utils.checkpoint``: contexts of the forward pass and its recomputation."""


@MODELS.register_module()
class LanguageModel(nn.Module):
    """Any causal language model of transformers, fed through ``inputs_embeds``.

    The base stays in eval mode and, unless told otherwise, frozen: trainable are then only LoRA
    maps, rows of added tokens and what an adapter brings, all float32.

    Args:
        model: folder, hub id, or fields of a configuration; see :func:`build_causal_lm`.
        tokenizer: folder or hub id of the tokenizer; default: ``model``.
        pretrained: with False, weights are random.
        dtype: of the base, e.g. "bfloat16"; default: bfloat16 where CUDA is available,
            else float32.
        frozen: with False the base trains too, which wants ``dtype="float32"`` and no LoRA: for
            models of toy size that have no language yet, or for full fine-tuning. With "layers" the
            embeddings of words and the map back to them train, in float32 whatever the base is,
            and nothing between but LoRA.
        lora: ``dict(r=, alpha=, dropout=, targets=)``, or None for no LoRA.
        checkpoint: recompute decoder layers in the backward pass instead of storing them.
        added_tokens: beyond the tokenizer's vocabulary, with rows that train; outputs name
            those that they need. A folder that has all of them already keeps its own rows, which
            train with the base.
        added_spread: how far their rows begin apart, see :func:`add_vocabulary`. Language models of
            random weights hardly learn to tell rows apart that begin alike.
        adapter: changes the layers; handed in by the system that needs it.
    """

    #: Where the weights are that llmdet.checkpoint.frozen leaves out of checkpoints.
    source_part, source_kind = "causal_lm", "language model"

    def __init__(
        self,
        model: str | Mapping[str, Any],
        tokenizer: str | None = None,
        pretrained: bool = True,
        dtype: str | None = None,
        frozen: bool | str = True,
        lora: Mapping[str, Any] | None = None,
        checkpoint: bool = False,
        added_tokens: tuple[str, ...] | list[str] = (),
        added_spread: float = 0.0,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        self.dtype: torch.dtype = getattr(torch, dtype or default_dtype())
        self.causal_lm = build_causal_lm(model, pretrained=pretrained, dtype=self.dtype)
        # Names before LoRA wraps its maps.
        self.source = model if pretrained and isinstance(model, str) else None
        self.source_names = tuple(self.causal_lm.state_dict())
        source = tokenizer or model
        if not isinstance(source, str):
            raise ConfigError("lmm.model given as a dict needs lmm.tokenizer, a folder or hub id")
        self.tokenizer_name, self.added_tokens = source, tuple(added_tokens)
        self.tokenizer: Any = load_tokenizer(
            source, role="lmm.tokenizer", config=self.causal_lm.config
        )
        if lora is not None:
            add_lora(self.causal_lm, **lora)
        if frozen is not True:  # behind LoRA, which freezes all else
            self._unfreeze(frozen, lora)
        if added_tokens and not were_added(self.tokenizer, self.added_tokens):
            add_vocabulary(self.causal_lm, self.tokenizer, self.added_tokens, added_spread)
        if adapter is not None:
            adapter.install(self)
        #: Whether every process must run it in every step, whatever its batch holds: a strategy
        #: says so that spreads its weights, which processes can only gather together.
        self.in_every_step = False
        #: Whether an adapter changes layers by what stands in all rows of a batch.
        self.rows_together = adapter is not None
        self.checkpoint = checkpoint
        if checkpoint:
            contexts = {} if adapter is None else {"context_fn": adapter.checkpoint_contexts}
            self.causal_lm.gradient_checkpointing_enable({"use_reentrant": False, **contexts})
        use_fast_linear(self)
        self.causal_lm.get_output_embeddings().register_forward_pre_hook(_whole_rows)
        self.eval()

    @property
    def hidden_size(self) -> int:
        """Width H of its tokens."""
        return self.causal_lm.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where it reads token ids."""
        return self.causal_lm.get_input_embeddings().weight.device

    @property
    def pad_id(self) -> int:
        """Id that fills rows up."""
        return pad_id(self.tokenizer)

    def train(self, mode: bool = True) -> LanguageModel:
        """Keeps everything in eval mode but LoRA's own dropout, which is 0 unless a config says so.

        Other dropout would blur what the detector is taught. Decoder layers are told of training
        only so that they recompute when asked to; no other part of theirs is.
        """
        super().train(False)
        for module in [self.causal_lm.get_decoder(), *self._layers]:
            module.training = mode and self.checkpoint
        for name, module in self.causal_lm.named_modules():
            if ".lora_dropout." in name and isinstance(module, nn.Dropout):
                module.train(mode)
        return self

    @property
    def _layers(self) -> list[nn.Module]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        modules = self.causal_lm.modules()
        return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]

    def loss(self, dialogue: DialogueBatch, features: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the supervised tokens, float32 scalar.

        Args:
            dialogue: R conversations of T tokens, padded behind.
            features: per kind of slot [n, H], in the order of ``dialogue.slots``.
        """
        return self.loss_of(self.states(dialogue, features), dialogue)

    def states(self, dialogue: DialogueBatch, features: Mapping[str, Tensor]) -> Tensor:
        """Hidden states [R, T, H] behind the last norm; arguments as in :meth:`loss`."""
        with self._precision():
            embeds = self.embed(dialogue, features)
            # Elsewhere one more call costs as much as many tokens.
            if self.rows_together or self.in_every_step or embeds.device.type != "cpu":
                mask = self._causal_mask(dialogue.attention_mask, dialogue.padded)
                return self._decode(embeds, mask)
            return self._decode_groups(embeds, dialogue)

    def loss_of(self, hidden: Tensor, dialogue: DialogueBatch) -> Tensor:
        """As :meth:`loss`, of the states that :meth:`states` gave."""
        with self._precision():
            head = self.causal_lm.get_output_embeddings()
            return supervised_cross_entropy(hidden, dialogue.supervised, dialogue.targets, head)

    @torch.no_grad()
    def generate(
        self, dialogue: DialogueBatch, features: Mapping[str, Tensor], **options: Any
    ) -> Generated:
        """What the model says to conversations that are padded on the left.

        Args:
            dialogue: conversations opened for their answer.
            features: as in :meth:`loss`.
            options: of transformers' ``generate``; ``num_return_sequences`` multiplies R.
        """
        with self._precision():
            embeds = self.embed(dialogue, features)
            ids = self.causal_lm.generate(
                inputs_embeds=embeds,
                attention_mask=dialogue.attention_mask,
                pad_token_id=self.pad_id,
                eos_token_id=self.tokenizer.eos_token_id,
                **options,
            )
            hidden = self._hidden_of_answers(embeds, dialogue.attention_mask, ids)
            probabilities = self._probabilities(hidden, ids)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ended = _behind_end(ids, self.tokenizer.eos_token_id)
        return Generated(
            texts=[text.strip() for text in texts],
            ids=ids,
            probabilities=probabilities.masked_fill(ended, 1.0),
            hidden=hidden,
            asked=dialogue,
        )

    def embed(self, dialogue: DialogueBatch, features: Mapping[str, Tensor]) -> Tensor:
        """Embeddings [R, T, H]: words, features in their slots, zero padding."""
        words = self.causal_lm.get_input_embeddings()(dialogue.input_ids)
        return fill_slots(words.to(self.dtype), dialogue, features)

    def _decode(
        self, embeds: Tensor, mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Hidden states [R, T, H] after the last norm."""
        return self.causal_lm.get_decoder()(
            inputs_embeds=embeds, attention_mask=mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state

    def _decode_groups(self, embeds: Tensor, dialogue: DialogueBatch) -> Tensor:
        """As :meth:`_decode`, rows of like lengths together: padding costs as much as words."""
        length, groups = embeds.shape[1], group_rows(dialogue.lengths)
        states = []
        for rows in groups:
            counts = [dialogue.lengths[row] for row in rows]
            some = embeds.new_tensor(rows, dtype=torch.int64)
            tokens = dialogue.attention_mask[some, : max(counts)]
            mask = self._causal_mask(tokens, min(counts) < max(counts))
            hidden = self._decode(embeds[some, : max(counts)], mask)
            states.append(F.pad(hidden, (0, 0, 0, length - max(counts))))
        order = torch.tensor([row for rows in groups for row in rows], device=embeds.device)
        return torch.cat(states)[order.argsort()]

    def _causal_mask(self, tokens: Tensor, padded: bool) -> Tensor | None:
        """Which positions see which, of conversations padded behind; None: all that are earlier.

        transformers makes the same [R, 1, T, T] of a padding mask, but asks the device whether
        there is any padding, which the host knows.
        """
        kinds = set(getattr(self.causal_lm.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            return tokens
        if not padded:
            return None
        earlier = tokens.new_ones(tokens.shape[1], tokens.shape[1]).tril()
        return earlier & tokens[:, None, None]

    def _hidden_of_answers(self, embeds: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """The state [R, G, H] from which each generated token was said, read in one pass.

        Holding every step's states while generating would keep all layers of the prompt; one
        more pass costs as much as reading the prompt did, whatever way of decoding chose the ids.
        """
        times = len(ids) // len(embeds)
        words = self.causal_lm.get_input_embeddings()(ids[:, :-1]).to(embeds.dtype)
        embeds = torch.cat([embeds.repeat_interleave(times, 0), words], 1)
        mask = mask.repeat_interleave(times, 0)
        mask = torch.cat([mask, mask.new_ones(words.shape[:2])], 1)
        hidden = self._decode(embeds, mask, (mask.cumsum(1) - 1).clamp(min=0))
        return hidden[:, -ids.shape[1] :]

    def _probabilities(self, hidden: Tensor, ids: Tensor) -> Tensor:
        head = self.causal_lm.get_output_embeddings()
        step = max(1, _LOGITS_AT_ONCE // self.causal_lm.config.vocab_size)
        pairs = zip(hidden.flatten(0, 1).split(step), ids.flatten().split(step), strict=True)
        found = [
            head(states).float().softmax(-1).gather(1, chosen[:, None])[:, 0]
            for states, chosen in pairs
        ]
        return torch.cat(found).view_as(ids)

    def _unfreeze(self, frozen: bool | str, lora: Mapping[str, Any] | None) -> None:
        if frozen not in (False, "layers"):
            raise ConfigError(f"lmm.frozen={frozen!r} is unknown; use True, False or 'layers'")
        if frozen == "layers":
            for words in self._embeddings:
                words.float().requires_grad_(True)
            return
        if lora is not None or self.dtype != torch.float32:
            raise ConfigError(
                "lmm.frozen=False trains every weight of the language model: set lmm.lora=None "
                f"(it is {lora}) and lmm.dtype='float32' (it is {self.dtype})"
            )
        self.causal_lm.requires_grad_(True)

    @property
    def _embeddings(self) -> tuple[nn.Module, nn.Module]:
        return self.causal_lm.get_input_embeddings(), self.causal_lm.get_output_embeddings()

    def _precision(self) -> Any:
        """bf16 autocast around a bf16 base; an outer autocast never reaches a float32 one."""
        halved = self.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(
            self.device.type, dtype=self.dtype if halved else None, enabled=halved
        )


def _whole_rows(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the head reads in one piece.

    transformers' generation hands it the last position of every row of the prompt; for strides
    like those PyTorch copies the head's weights, the largest there are, once for every row.
    """
    return inputs[0].contiguous(), *inputs[1:]


def _behind_end(ids: Tensor, end: int) -> Tensor:
    """[R, G] bool, True behind the first token that ends the turn."""
    is_end = ids == end
    return (is_end.cumsum(1) - is_end.long()) > 0
