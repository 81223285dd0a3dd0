"""Recordings of a whole GLaMM: training, teacher-forced masks, regions, and a generated answer.

The model is a ``RegionLMM`` built from the recorded sizes, its weights come through the key map of
GLaMM's files, and the faults of the released weights are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.datasets.masks import encode_mask
from llmdet.datasets.sample import GroundingSample, Regions
from llmdet.datasets.views import make_view
from llmdet.errors import DataError
from llmdet.models.language.dialogue import DialogueBatch, collate_dialogue
from llmdet.models.outputs.base import Scene
from llmdet.models.outputs.mask_decoder import original_logits
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.models.vision.views import TowerOutput, View, collate_views
from llmdet.prompts.conversation import Conversation, TokenizedConversation
from llmdet.testing.parity.mask_build import build
from llmdet.testing.parity.mask_gradients import LOSSES, compare_losses
from llmdet.testing.parity.mask_text import REGION_TOKEN, parse, tokenizer_of
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import (
    Row,
    compare_exact,
    compare_masks,
    compare_number,
    compare_recorded,
    compare_tensor,
)


@dataclass(frozen=True)
class Batch:
    """What one step reads."""

    inputs: Mapping[str, View]
    samples: Sequence[DetDataSample]
    tokens: Sequence[Sequence[TokenizedConversation]]  # of each sample
    scene: Scene
    dialogue: DialogueBatch


@dataclass(frozen=True)
class Step:
    """What the model makes of a batch."""

    seen: Mapping[str, TowerOutput]
    features: Mapping[str, Tensor]
    embeds: Tensor  # [R, T, H]
    hidden: Tensor  # [R, T, H]


def check(folder: Path) -> Iterator[Row]:
    """Compare everything that a folder records."""
    recorded, expected = read_json(folder / "expected.json"), read_tensors(folder / "expected.pt")
    weights = {k: v.float().clone() for k, v in read_tensors(folder / "state_dict.pt").items()}
    model = build(read_json(folder / "model_config.json"), weights, tokenizer_of(folder))
    runs = {"train": _train, "region": _region, "generate": _generate}
    for name, run in runs.items():
        if name in recorded:
            there = {k.removeprefix(f"{name}."): v for k, v in expected.items()}
            model.zero_grad()
            for row in run(model, recorded, there):
                yield replace(row, name=f"{name}.{row.name}")


def _batch(
    model: RegionLMM,
    pictures: Sequence[Tensor],
    texts: Sequence[str],
    offset: Sequence[int],
    **of: Any,
) -> Batch:
    """Samples of pictures [h, w, 3] and their conversations, from one offset to the next.

    ``of`` has ``boxes`` in 0..1 of each picture, or ``masks`` [n, h, w].
    """
    samples, flat, image = [], [], []
    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        conversations, masks = [], 0
        for text in texts[offset[number] : offset[number + 1]]:
            conversation, masks = _with_masks(parse(text), masks)
            conversations.append(conversation)
        regions = Regions()
        if "boxes" in of:
            boxes = np.array(of["boxes"][number], np.float32).reshape(-1, 4)
            regions = Regions(boxes * np.array([width, height, width, height], np.float32))
        elif "masks" in of:
            found = tuple(encode_mask(mask.numpy() > 0) for mask in of["masks"][number])
            regions = Regions(np.zeros((len(found), 4), np.float32), found)
        sample = DetDataSample()
        grounding = GroundingSample(regions=regions, conversations=tuple(conversations))
        sample.set_field(grounding, "grounding")
        samples.append(sample)
        flat += conversations
        image += [number] * len(conversations)
    views = {
        name: collate_views(
            [make_view(np.ascontiguousarray(each.numpy()[..., ::-1]), view) for each in pictures]
        )
        for name, view in model.view_settings().items()
    }
    tokens = [model.conversations(each) for each in flat]
    of_samples = [
        [t for t, n in zip(tokens, image, strict=True) if n == i] for i in range(len(pictures))
    ]
    scene = Scene({}, samples, image, flat, tokens)
    dialogue = collate_dialogue(tokens, model.lmm.pad_id, "cpu")
    return Batch(views, samples, of_samples, scene, dialogue)


def _with_masks(conversation: Conversation, first: int) -> tuple[Conversation, int]:
    """Marks of regions in place of the tokens of masks, counted from ``first``."""
    turns = []
    for turn in conversation.turns:
        pieces = turn.text.split("[SEG]") if turn.learned else [turn.text]
        marks = [f"<mask:{first + number}>" for number in range(len(pieces) - 1)]
        first += len(marks)
        text = "".join(chain.from_iterable(zip(pieces, [*marks, ""], strict=True)))
        turns.append(replace(turn, text=text))
    return Conversation(tuple(turns)), first


@torch.no_grad()
def _step(model: RegionLMM, batch: Batch) -> Step:
    seen = model.look(batch.inputs)
    features = model.filler(seen, batch.samples, batch.tokens)
    embeds = model.lmm.embed(batch.dialogue, features)
    return Step(seen, features, embeds, model.lmm.states(batch.dialogue, features))


def _train(
    model: RegionLMM, recorded: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> Iterator[Row]:
    values = recorded["train"]
    numbers = range(len(values["offset"]) - 1)
    pictures = [expected[f"img{n}.rgb_uint8_hwc"] for n in numbers]
    masks = {n: expected[f"masks.{n}"] for n in numbers}
    texts, offset = values["conversation_list"], values["offset"]
    batch = _batch(model, pictures, texts, offset, masks=masks)
    output: Any = model.output
    output.recorded = masks
    yield from _token_rows(model, values, batch)
    step = _step(model, batch)
    found = _masks(model, batch, step)
    found |= {
        "global_enc_images": batch.inputs["clip"].pixels,
        "grounding_enc_images": batch.inputs["sam"].pixels,
        "expanded_labels": batch.dialogue.labels,
        "expanded_attention_mask": batch.dialogue.attention_mask,
    }
    sizes = [list(size) for size in batch.inputs["sam"].frame.valid_sizes]
    yield compare_exact("resize_list", values["resize_list"], sizes)
    yield from _padded_rows(
        expected, batch, {"inputs_embeds": step.embeds, "last_hidden": step.hidden}
    )
    yield from _known(expected, found)
    yield from _teacher_forced(model, recorded, expected, pictures, found["selected_hidden"])
    yield from compare_losses(model, values, expected, batch.inputs, batch.samples)


def _token_rows(model: RegionLMM, values: Mapping[str, Any], batch: Batch) -> Iterator[Row]:
    """Ids and labels, with recorded ids where slots are."""
    region = model.lmm.tokenizer.convert_tokens_to_ids(REGION_TOKEN)
    for row, tokens in enumerate(batch.scene.tokens):
        ids = _shortened(tokens.ids.tolist(), tokens, region)
        length = len(ids)
        padding = [model.lmm.pad_id] * (len(values["input_ids"][row]) - length)
        yield compare_exact(f"input_ids.{row}", values["input_ids"][row], ids + padding)


def _shortened(ids: list[int], tokens: TokenizedConversation, region: int) -> list[int]:
    for slot in reversed(tokens.slots):
        mark = -200 if slot.kind == "image" else region
        ids[slot.start : slot.start + slot.length] = [mark]
    return ids


def _masks(model: RegionLMM, batch: Batch, step: Step) -> dict[str, Tensor]:
    """From states of tokens in front of masks to masks."""
    seg = model.lmm.tokenizer.convert_tokens_to_ids("[SEG]")
    at = torch.zeros(batch.dialogue.labels.shape, dtype=torch.bool)
    at[:, :-1] = batch.dialogue.labels[:, 1:] == seg
    found = {"seg_token_mask": at, "selected_hidden": step.hidden[at]}
    image = torch.tensor(batch.scene.image)[at.nonzero()[:, 0]]
    found |= _decoded(model, step.seen["sam"], step.hidden[at], image)
    return found


@torch.no_grad()
def _decoded(
    model: RegionLMM, seen: TowerOutput, states: Tensor, image: Tensor
) -> dict[str, Tensor]:
    output: Any = model.output
    prompts = output.prompt_map(states)
    logits = output.decoder(seen, prompts, image)
    found = {}
    for number in range(len(seen.frame.original_sizes)):
        mine = image == number
        found[f"pred_embeddings.{number}"] = prompts[mine]
        found[f"pred_masks.{number}"] = original_logits(logits[mine], seen.frame, number)
    return found


def _known(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[Row]:
    """Everything recorded that we have a name for."""
    for masks in (False, True):
        there = {
            name: value
            for name, value in expected.items()
            if name.split("[")[0] in found and name.startswith("pred_masks") == masks
        }
        compare = compare_masks if masks else compare_tensor
        yield from compare_recorded(there, partial(_find, found), compare)


def _find(found: Mapping[str, Tensor], name: str, _: int) -> Tensor | None:
    return found.get(name)


def _padded_rows(
    expected: Mapping[str, Tensor], batch: Batch, found: Mapping[str, Tensor]
) -> Iterator[Row]:
    """Values at tokens; what padding becomes is nobody's business."""
    there = batch.dialogue.attention_mask
    for name, ours in found.items():
        for key in [each for each in expected if each.split("[")[0] == name]:
            step = int(key.partition("::")[2].rstrip("]")) if "[" in key else 1
            kept = there[:, ::step]
            if expected[key].shape[:2] != kept.shape:
                yield compare_tensor(key, expected[key], ours[:, ::step])
            else:
                yield compare_tensor(key, expected[key][kept], ours[:, ::step][kept])


def _teacher_forced(
    model: RegionLMM,
    recorded: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    pictures: Sequence[Tensor],
    states: Tensor,
) -> Iterator[Row]:
    """The first image by itself, as in an evaluation that gives the answers."""
    values = recorded["train"]
    texts = values["conversation_list"]
    batch = _batch(model, pictures[:1], texts, values["offset"][:2])
    found = _masks(model, batch, _step(model, batch))
    key = "teacher_forced.pred_masks.0"
    if key in expected:
        yield compare_masks(key, expected[key], found["pred_masks.0"])
    alone = found["selected_hidden"]
    yield compare_tensor("teacher_forced.selected_hidden", states[: len(alone)], alone)


def _region(
    model: RegionLMM, recorded: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> Iterator[Row]:
    values = recorded["region"]
    texts, offset, boxes = values["conversation_list"], values["offset"], values["bboxes"]
    pictures = [expected[f"train.img{n}.rgb_uint8_hwc"] for n in range(len(boxes))]
    batch = _batch(model, pictures, texts, offset, boxes=boxes)
    yield from _token_rows(model, values, batch)
    step = _step(model, batch)
    maps = step.seen["clip"].maps
    found = {f"clip_level{n}": each.flatten(2).mT for n, each in enumerate(maps)}
    slots = batch.dialogue.slots["region"]
    counts = [sum(s.kind == "region" for t in each for s in t.slots) for each in batch.tokens]
    length = batch.dialogue.input_ids.shape[1]
    places = [(each % length).tolist() for each in slots.split(counts)]
    yield compare_exact("bbox_positions_expanded", values["bbox_positions_expanded"], places)
    for number, part in enumerate(step.features["region"].split(counts)):
        found[f"features.{number}"] = part
    for number, part in enumerate(step.embeds.flatten(0, 1)[slots].split(counts)):
        found[f"inputs_embeds_at_bbox.{number}"] = part
    yield from _known(expected, found)
    yield from _padded_rows(expected, batch, {"inputs_embeds": step.embeds})
    yield from compare_losses(model, values, expected, batch.inputs, batch.samples)
    yield from _other_numbers(model, recorded, batch, pictures)


def _other_numbers(
    model: RegionLMM, recorded: Mapping[str, Any], batch: Batch, pictures: Sequence[Tensor]
) -> Iterator[Row]:
    """More boxes than marks change nothing, fewer are an error, as in the original."""
    values = recorded["region"]
    for name, result in recorded.get("region_mismatch", {}).items():
        more = name.startswith("more")
        boxes = [[*each, each[0]] if more else [] for each in values["bboxes"]]
        other = _batch(model, pictures, values["conversation_list"], values["offset"], boxes=boxes)
        try:
            with torch.no_grad():
                ours = sum(model.loss(other.inputs, other.samples).values())
        except DataError:
            yield compare_exact(f"mismatch.{name}", isinstance(result, str), True)
        else:
            yield compare_number(f"mismatch.{name}", result, float(ours), LOSSES)


@torch.no_grad()
def _generate(
    model: RegionLMM, recorded: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> Iterator[Row]:
    values = recorded["generate"]
    picture = expected["train.img0.rgb_uint8_hwc"]
    batch = _batch(model, [picture], [values["prompt"]], [0, 1])
    asked = model._collate(batch.scene.tokens)
    seen = model.look(batch.inputs)
    features = model.filler(seen, batch.samples, batch.tokens)
    said = model.lmm.generate(
        asked, features, do_sample=False, max_new_tokens=values["max_new_tokens"]
    )
    yield compare_exact("new_tokens", values["new_tokens"], said.ids[0].tolist())
    region = model.lmm.tokenizer.convert_tokens_to_ids(REGION_TOKEN)
    prompt = _shortened(asked.input_ids[0].tolist(), batch.scene.tokens[0], region)
    seg = said.ids[0] == model.lmm.tokenizer.convert_tokens_to_ids("[SEG]")
    mask = torch.zeros(expected["seg_token_mask"].shape, dtype=torch.bool)
    mask[0, seg.nonzero()[:, 0] + asked.input_ids.shape[1] - 1] = True
    found = {
        "output_ids": torch.tensor([prompt + said.ids[0].tolist()]),
        "seg_token_mask": mask,
        "selected_hidden": said.hidden[0][seg],
    }
    states = found["selected_hidden"]
    image = torch.zeros(len(states), dtype=torch.int64)
    yield from _known(expected, found | _decoded(model, seen["sam"], states, image))
