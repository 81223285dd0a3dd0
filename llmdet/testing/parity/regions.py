"""Recordings of SpatialRGPT, which holds RegionGPT's region encoder: its tensors against ours.

Three kinds of folder: ``region_extractor``, ``splice`` and ``region_cls``. What the original does
wrong, and our parts can do on request, is asked for here; how it matches masks with placeholders is
not to be had elsewhere, and is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmdet.datasets.views import ViewSettings, make_view, window_around
from llmdet.models.language.dialogue import collate_dialogue, fill_slots
from llmdet.models.regions import AverageGrid, MaskPool, MLPConnector
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.refinement import FeatureRefinement
from llmdet.models.vision.views import Frame, TowerOutput
from llmdet.prompts.conversation import (
    IGNORE_INDEX,
    ConversationSettings,
    Slot,
    TokenizedConversation,
)
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import Row, compare_exact, compare_recorded, compare_tensor

#: Side of the grid of image tokens, whatever the tower's.
GRID = 27
IMAGE_ID = -200
CPU = torch.device("cpu")


def check(folder: Path) -> Iterator[Row]:
    """Compare everything that a folder records."""
    if (folder / "model_config.json").exists():
        config = read_json(folder / "model_config.json")
        compare = _splices if "image_tokens" in config else _extractor
        yield from compare(folder, config)
    else:
        yield from _windows(folder)


class RegionExtractor(nn.Module):
    """The parts of ours that together are the original's extractor, with its faults."""

    def __init__(self, dims: int, hidden: int) -> None:
        super().__init__()
        self.refinement = FeatureRefinement(dims, "deconv")
        self.rgb = MLPConnector(dims, hidden, depth=1)
        self.depth = MLPConnector(dims, hidden, depth=1)
        self.pool = MaskPool(sampling="bilinear", vanished="zero")
        self.grid = AverageGrid(GRID)

    def load(self, weights: Mapping[str, Tensor], prefix: str = "") -> None:
        """Take over weights under the original's names."""
        names = {
            f"{prefix}feature_refinement_module.": "refinement.layers.",
            f"{prefix}rgb_projector.": "rgb.projector.0.",
            f"{prefix}depth_projector.": "depth.projector.0.",
        }
        ours = {
            here + key.removeprefix(theirs): value.float()
            for theirs, here in names.items()
            for key, value in weights.items()
            if key.startswith(theirs)
        }
        self.load_state_dict(ours)

    def pooled(self, maps: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Means [N, C] of maps [B, C, h, w] over the masks [N, side, side] of each image."""
        if not sum(map(len, masks)):
            return [maps.new_zeros(0, maps.shape[1]) for _ in masks]
        seen = square_view(maps, masks)
        counts = [len(each) for each in masks]
        every = tuple(mask for each in masks for mask in each)
        regions = replace(batch_regions(counts, CPU), masks=every)
        return list(self.pool(seen, regions).features[:, 0].split(counts))


def square_view(maps: Tensor, masks: Sequence[Tensor]) -> TowerOutput:
    """A tower's output on square images that are as large as their masks."""
    images, sides = len(maps), {each.shape[-1] for each in masks if len(each)}
    size = (sides.pop(),) * 2 if sides else (GRID, GRID)
    sizes = (size,) * images
    frame = Frame(torch.ones(images, 2), torch.zeros(images, 2), sizes, sizes, size)
    return TowerOutput(maps.flatten(2).mT, (maps,), torch.ones(images, 1, 2), frame)


@torch.no_grad()
def _extractor(folder: Path, config: Mapping[str, Any]) -> Iterator[Row]:
    side, dims = config["tower_side"], config["mm_hidden_size"]
    model = RegionExtractor(dims, config["hidden_size"])
    model.load(read_tensors(folder / "state_dict.pt"))
    inputs = read_tensors(folder / "inputs.pt")
    maps = (inputs["tower_features_int8"].float() / 30).mT.unflatten(2, (side, side))
    masks = [inputs[name].float() for name in sorted(inputs) if name.startswith("masks_fp16.")]
    ours: dict[str, Tensor] = {}
    feat = maps
    for number, layer in enumerate(model.refinement.layers):
        feat = layer(feat)
        ours[f"feature_refinement_module.{number}.out"] = feat
    ours["hres_tower_features"] = feat.flatten(2).mT
    whole = batch_regions([1] * len(maps), CPU)
    ours["lres_tower_features"] = model.grid(square_view(feat, masks), whole).features
    pooled, unrefined = model.pooled(feat, masks), model.pooled(maps, masks)
    for image, each in enumerate(masks):
        regions = replace(batch_regions([len(each)], CPU), masks=tuple(each))
        seen = square_view(feat[image : image + 1], [each])
        soft = model.pool.coverage(seen, regions)
        ours[f"resized_soft_mask.{image}"] = soft
        ours[f"mask_pooling.mask_gt_threshold.{image}"] = soft.flatten(1) > 0.5
        ours[f"mask_pooling.out.{image}"] = pooled[image]
        ours[f"mask_embeds.{image}"] = model.rgb(pooled[image], pooled[image])
        depth = unrefined[image]
        ours[f"depth_embeds_from_unrefined_tower.{image}"] = model.depth(depth, depth)
    expected = read_tensors(folder / "expected.pt")
    yield from compare_recorded(expected, _finder(ours))


@torch.no_grad()
def _splices(folder: Path, config: Mapping[str, Any]) -> Iterator[Row]:
    dims, hidden, side = config["mm_hidden_size"], config["hidden_size"], config["tower_side"]
    weights = read_tensors(folder / "state_dict.pt")
    model = RegionExtractor(dims, hidden)
    model.load(weights, "region_extractor.")
    projector = MLPConnector(dims, hidden, depth=1)
    projector.load_state_dict(
        {
            f"projector.0.{name}": weights[f"mm_projector.{name}"].float()
            for name in ("weight", "bias")
        }
    )
    inputs = read_tensors(folder / "inputs.pt")
    expected = read_tensors(folder / "expected.pt")

    def maps(name: str, images: int) -> Tensor:
        return inputs[name][:images].float().mT.unflatten(2, (side, side))

    for name, case in read_json(folder / "expected.json").items():
        images = case["n_images"]
        feat = model.refinement(maps("tower_features_fp16", images))
        masks = [
            expected.get(f"{name}.masks.{image}", torch.zeros(0, 1, 1)).float()
            for image in range(images)
        ]
        grid = model.grid(square_view(feat, masks), batch_regions([1] * images, CPU)).features
        regions = [model.rgb(part, part) for part in model.pooled(feat, masks)]
        depths = regions
        if case["depth"]:
            unrefined = model.pooled(maps("depth_tower_features_fp16", images), masks)
            depths = [model.depth(part, part) for part in unrefined]
        spliced = _splice(case, {"image": projector(grid, grid)}, regions, depths)
        dialogue, features = spliced
        words = weights["llm.model.embed_tokens.weight"].float()[dialogue.input_ids]
        embeds = fill_slots(words, dialogue, features)
        found = {
            "inputs_embeds": embeds,
            "labels": dialogue.labels,
            "attention_mask": dialogue.attention_mask,
        }
        for number, kept in enumerate(case["rows_that_are_not_image_features"]):
            found[f"text_rows.{number}"] = embeds[number, kept]
        recorded = {
            key.removeprefix(f"{name}."): value
            for key, value in expected.items()
            if key.startswith(f"{name}.") and ".masks." not in key
        }
        for row in compare_recorded(recorded, _finder(found)):
            yield replace(row, name=f"{name}/{row.name}")


def _finder(found: Mapping[str, Tensor]) -> Callable[[str, int], Tensor | None]:
    return lambda name, _: found.get(name)


def _splice(
    case: Mapping[str, Any],
    features: dict[str, Tensor],
    regions: Sequence[Tensor],
    depths: Sequence[Tensor],
) -> tuple[Any, dict[str, Tensor]]:
    """The conversations of a case with their slots, and what fills these."""
    marks = {IMAGE_ID: "image", case["mask_token_id"]: "region", case["depth_token_id"]: "depth"}
    limit = case["tokenizer_model_max_length"] or 10**9
    conversations, image = [], 0
    filled: dict[str, list[Tensor]] = {"image": [], "region": [], "depth": []}
    for ids, mask in zip(case["input_ids"], case["attention_mask"], strict=True):
        kept = [number for number, valid in zip(ids, mask, strict=True) if valid]
        shown = kept.count(IMAGE_ID)
        sources = (
            {"region": [], "depth": []}
            if not shown
            else {"region": list(regions[image]), "depth": list(depths[image])}
        )
        conversation = _conversation(kept, marks, sources, limit)
        for slot in conversation.slots:
            if slot.kind == "image":
                filled["image"].append(features["image"][image + slot.index][: slot.length])
            else:
                filled[slot.kind].append(sources[slot.kind][slot.index][None])
        conversations.append(conversation)
        image += shown
    left = case["padding_side"] == "left"
    dialogue = collate_dialogue(conversations, 0, left=left)
    return dialogue, {kind: torch.cat(parts) for kind, parts in filled.items() if parts}


def _conversation(
    ids: Sequence[int],
    marks: Mapping[int, str],
    sources: Mapping[str, Sequence[Tensor]],
    limit: int,
) -> TokenizedConversation:
    """Ids with slots, matched as the original does.

    Masks beyond the placeholders are left out; one mask stands for all placeholders; where there
    is none the placeholder stays a word.
    """
    tokens: list[int] = []
    labels: list[int] = []
    slots: list[Slot] = []
    count = {"image": 0, "region": 0, "depth": 0}
    for number in ids:
        kind = marks.get(number)
        known = 1 if kind == "image" else len(sources.get(kind or "", ()))
        if kind is None or not known:
            tokens.append(number)
            labels.append(number)
            continue
        index = count[kind] if kind == "image" or known > 1 else 0
        count[kind] += 1
        length = GRID * GRID if kind == "image" else 1
        slots.append(Slot(kind, index, len(tokens), length))
        tokens += [0] * length
        labels += [IGNORE_INDEX if kind == "image" else number] * length
    settings = ConversationSettings("recorded", (), limit)
    kept = tuple(slot for slot in slots if slot.start + slot.length <= limit)
    return TokenizedConversation(np.array(tokens[:limit]), np.array(labels[:limit]), kept, settings)


def _windows(folder: Path) -> Iterator[Row]:
    recorded = read_json(folder / "expected.json")
    for number, case in enumerate(recorded["get_crop_box"]):
        size = case["height"], case["width"]
        window = window_around(case["box"], size, legacy=True)
        yield compare_exact(f"get_crop_box.{number}", case["crop"], list(window))
    for number, case in enumerate(recorded["pad_to_square"]):
        mask = np.array(case["inp"], np.uint8)
        side = max(mask.shape)
        black = ViewSettings((side, side), mean=(0, 0, 0), interpolation="nearest")
        padded = make_view(np.repeat(mask[..., None], 3, 2), black).pixels[0]
        expected = torch.tensor(case["out"])
        yield compare_tensor(f"pad_to_square.{number}", expected, torch.tensor(padded).long())
