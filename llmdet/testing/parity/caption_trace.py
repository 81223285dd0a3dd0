"""Keeps what the language model was given and what it made of it, image and region calls apart."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.models.language.dialogue import DialogueBatch, collate_dialogue
from llmdet.models.systems.llmdet import LLMDet
from llmdet.models.systems.llmdet.captioner import Captioner
from llmdet.models.systems.llmdet.region_attention import VisualContext
from llmdet.prompts.conversation import Conversation
from llmdet.prompts.conversation_tokens import ConversationTokenizer

#: The original's id for the place of visual tokens.
IMAGE_TOKEN = -200
#: The original's recordings of image-level cross-attention keep every eleventh token.
STRIDE = 11
_CONNECTOR = re.compile(r"connector_call(\d+)\.(in|out)\(HWC")
_LAYER = re.compile(r"llm_layer(\d+)\.(.+)")


class CaptionTrace:
    """Records one training step; use it as a context manager around the step."""

    def __init__(self, model: LLMDet) -> None:
        self.model = model
        self.calls: dict[str, dict[str, Any]] = {"image": {}, "region": {}}
        self.grids: list[tuple[Tensor, Tensor]] = []  # in and out of the connector, per grid
        self._current: dict[str, Any] = {}
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> CaptionTrace:
        model = self.model
        assert model.lmm is not None
        decoder = model.lmm.causal_lm.get_decoder()
        together = model.lmm.rows_together
        model.lmm.rows_together = True  # what layers give shall be of whole batches
        self._undo.append(lambda: setattr(model.lmm, "rows_together", together))
        assert model.image_captioner is not None
        assert model.region_captioner is not None
        self._watch(model.image_captioner.connector.projector, self._grid)
        self._watch(model.region_captioner.connector.projector, self._region)
        self._listen("image", model.image_captioner)
        self._listen("region", model.region_captioner)
        self._watch(decoder, lambda _, output: self._keep("hidden", output.last_hidden_state))
        for index, layer in enumerate(decoder.layers):
            self._watch(layer, lambda _, output, i=index: self._keep(f"{i}.out", output))
            look = getattr(layer, "region_attention", None)
            if look is not None:
                self._watch(look, lambda args, output, i=index: self._look(i, args, output))
                self._watch(
                    look.down_proj,
                    lambda _, output, i=index: self._keep(
                        f"{i}.cross_attn.query_in(down_proj)", output
                    ),
                )
                self._watch(
                    look.up_proj,
                    lambda args, _, i=index: self._keep(f"{i}.cross_attn.out", args[0]),
                )
        loss = model.lmm.loss
        model.lmm.loss = lambda *args: self._call(loss, *args)  # type: ignore[method-assign]
        self._undo.append(lambda: delattr(model.lmm, "loss"))
        return self

    def __exit__(self, *_: object) -> None:
        for undo in self._undo:
            undo()

    def find(self, kind: str, name: str) -> Tensor | None:
        """Our value of what the original recorded as ``kind.name``; None if it has none."""
        kept = self.calls[kind]
        if match := _CONNECTOR.match(name):
            return self._map(int(match[1]), match[2])
        if match := _LAYER.fullmatch(name):
            value = kept.get(f"{match[1]}.{match[2]}")
            if value is None or match[2] == "out":
                return value
            return _strided(_by_conversation(value, kept["context"]), kind)
        stage, _, rest = name.partition(".")
        if stage == "region_connector":
            return kept[f"region_connector.{rest}"]
        if stage == "lmm_in":
            queries = kept["features"].unflatten(0, (len(kept["dialogue"].input_ids), -1))
            return (self._original_inputs(kind) | {"image_queries": queries})[rest]
        if stage == "embed":
            return self._embedding(kind)[rest]
        if stage == "cross_attention_input":
            return _strided(_cross_attention_inputs(kept["context"])[rest], kind)
        if name == "logits_at_label_positions":
            head: Any = self.model.lmm.causal_lm.get_output_embeddings()  # type: ignore[union-attr]
            return head(kept["hidden"].flatten(0, 1)[kept["dialogue"].supervised])
        return None

    def _watch(self, module: nn.Module, keep: Callable[..., None]) -> None:
        handle = module.register_forward_hook(lambda _, args, output: keep(args, output))
        self._undo.append(handle.remove)

    def _listen(self, kind: str, captioner: Captioner) -> None:
        read = captioner.tokenized
        conversations: list[Conversation] = []
        self.calls[kind]["conversations"] = conversations

        def recorded(batch: Sequence[Conversation]) -> Any:
            conversations.extend(filter(captioner.conversations.reads, batch))
            return read(batch)

        captioner.tokenized = recorded  # type: ignore[method-assign,assignment]
        self._undo.append(lambda: delattr(captioner, "tokenized"))

    def _keep(self, name: str, value: Tensor) -> None:
        self._current[name] = value

    def _grid(self, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.grids.append((args[0], output))

    def _region(self, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls["region"]["region_connector.in"] = args[0]
        self.calls["region"]["region_connector.out"] = output

    def _look(self, layer: int, args: tuple[Any, ...], output: Tensor) -> None:
        self._current["context"] = args[1]
        self._current[f"{layer}.corss_attn_norm.out"] = output

    def _call(
        self, loss: Callable[..., Tensor], dialogue: DialogueBatch, features: Mapping[str, Tensor]
    ) -> Tensor:
        ((kind, values),) = features.items()
        self._current = self.calls[kind]
        self._current.update(dialogue=dialogue, features=values)
        return loss(dialogue, features)

    def _original_inputs(self, kind: str) -> dict[str, Tensor]:
        """What the original hands to its language model, which then inserts the visual tokens.

        It cuts conversations once before that and once more afterwards, so that these are longer.
        """
        captioner = {
            "image": self.model.image_captioner,
            "region": self.model.region_captioner,
        }[kind]
        assert captioner is not None
        settings = replace(captioner.conversations.settings, slots=((kind, 1),))
        tokenize = ConversationTokenizer(captioner.conversations.tokenizer, settings)
        pad = tokenize.pad_id
        batch = collate_dialogue([tokenize(c) for c in self.calls[kind]["conversations"]], pad)
        ids = batch.input_ids.flatten().index_fill(0, batch.slots[kind], IMAGE_TOKEN)
        ids = ids.view_as(batch.input_ids)
        return {"input_ids": ids, "labels": batch.labels, "attention_mask": ids != pad}

    def _embedding(self, kind: str) -> dict[str, Tensor]:
        kept = self.calls[kind]
        dialogue, lmm = kept["dialogue"], self.model.lmm
        assert lmm is not None
        mask = torch.zeros_like(dialogue.attention_mask).flatten()
        return {
            "inputs_embeds": lmm.embed(dialogue, {kind: kept["features"]}),
            "attention_mask": dialogue.attention_mask,
            "labels": dialogue.labels,
            "im_mask": mask.index_fill(0, dialogue.slots[kind], True).view_as(dialogue.labels),
        }

    def _map(self, call: int, side: str) -> Tensor:
        """Height, width, channels of one image's grid; the original goes image by image."""
        image, grid = divmod(call, len(self.grids))
        flat = self.grids[grid][("in", "out").index(side)][image]
        cells = math.isqrt(len(flat))
        return flat.unflatten(0, (cells, cells))


def _strided(value: Tensor | None, kind: str) -> Tensor | None:
    return value if value is None or kind == "region" else value[:, ::STRIDE]


def _by_conversation(values: Tensor, context: VisualContext) -> Tensor:
    """[R * V, ...] to [R, V, ...]."""
    return values.unflatten(0, (context.conversations, -1))


def _cross_attention_inputs(context: VisualContext) -> dict[str, Tensor]:
    assert context.pyramid.padding_mask is not None
    image = _by_conversation(context.image, context)[:, 0]
    return {
        "memory_mask": context.pyramid.padding_mask[image],
        "query_pos": _by_conversation(context.query_pos, context),
        "reference_points_input": _by_conversation(context.references, context),
    }
