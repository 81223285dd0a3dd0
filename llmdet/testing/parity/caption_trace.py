"""Keeps what the language model was given and what it made of it, image and region calls apart."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.models.detectors.llmdet import LLMDet
from llmdet.models.lmm.conversation import ConversationBuilder, DialogueBatch
from llmdet.models.lmm.language_model import VisualTokens

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
        model, decoder = self.model, self.model.lmm.causal_lm.get_decoder()
        assert model.image_captioner is not None
        assert model.region_captioner is not None
        self._watch(model.image_captioner.connector.projector, self._grid)
        self._watch(model.region_captioner.connector.projector, self._region)
        self._listen("image", model.image_captioner.conversations)
        self._listen("region", model.region_captioner.conversations)
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
        model.lmm.loss = lambda *args: self._call(loss, *args)
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
            return value if match[2] == "out" else _strided(value, kind)
        stage, _, rest = name.partition(".")
        if stage == "region_connector":
            return kept[f"region_connector.{rest}"][:, None]
        if stage == "lmm_in":
            queries = {"image_queries": kept["visual"].embeds}
            return (kept["original_inputs"] | queries)[rest]
        if stage == "embed":
            return _embedding(kept["dialogue"], kept["visual"], self.model)[rest]
        if stage == "cross_attention_input":
            return _strided(_cross_attention_inputs(kept["context"])[rest], kind)
        if name == "logits_at_label_positions":
            head = self.model.lmm.causal_lm.get_output_embeddings()
            return head(kept["hidden"].flatten(0, 1)[kept["dialogue"].supervised])
        return None

    def _watch(self, module: nn.Module, keep: Callable[..., None]) -> None:
        handle = module.register_forward_hook(lambda _, args, output: keep(args, output))
        self._undo.append(handle.remove)

    def _listen(self, kind: str, conversations: ConversationBuilder) -> None:
        make = conversations.training_batch

        def recorded(prompts: Sequence[str], answers: Sequence[str], count: int) -> DialogueBatch:
            short = make(prompts, answers, 1)
            self.calls[kind]["original_inputs"] = _original_inputs(short, self.model.lmm.pad_id)
            return make(prompts, answers, count)

        conversations.training_batch = recorded  # type: ignore[method-assign,assignment]
        self._undo.append(lambda: delattr(conversations, "training_batch"))

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
        self, loss: Callable[..., Tensor], dialogue: DialogueBatch, visual: VisualTokens, *rest: Any
    ) -> Tensor:
        kind = "region" if visual.embeds.shape[1] == 1 else "image"
        self._current = self.calls[kind]
        self._current.update(dialogue=dialogue, visual=visual)
        return loss(dialogue, visual, *rest)

    def _map(self, call: int, side: str) -> Tensor:
        """Height, width, channels of one image's grid; the original goes image by image."""
        image, grid = divmod(call, len(self.grids))
        flat = self.grids[grid][("in", "out").index(side)][image]
        cells = math.isqrt(len(flat))
        return flat.unflatten(0, (cells, cells))


def _strided(value: Tensor | None, kind: str) -> Tensor | None:
    return value if value is None or kind == "region" else value[:, ::STRIDE]


def _original_inputs(dialogue: DialogueBatch, pad: int) -> dict[str, Tensor]:
    """What the original hands to its language model, which then inserts the visual tokens.

    It cuts conversations once before that and once more afterwards, so that these are longer.

    Args:
        dialogue: conversations with one visual token.
        pad: id of padding.
    """
    ids = dialogue.input_ids.scatter(1, dialogue.visual, IMAGE_TOKEN)
    return {"input_ids": ids, "labels": dialogue.labels, "attention_mask": ids != pad}


def _embedding(dialogue: DialogueBatch, visual: VisualTokens, model: LLMDet) -> dict[str, Tensor]:
    embeds = model.lmm.embed(dialogue, visual.embeds)
    mask = torch.zeros_like(dialogue.attention_mask).scatter(1, dialogue.visual, True)
    return {
        "inputs_embeds": embeds,
        "attention_mask": dialogue.attention_mask,
        "labels": dialogue.labels,
        "im_mask": mask,
    }


def _cross_attention_inputs(context: Any) -> dict[str, Tensor]:
    return {
        "memory_mask": context.pyramid.padding_mask[context.image],
        "query_pos": context.query_pos,
        "reference_points_input": context.references,
    }
