"""Recordings of GLaMM's masks: SAM's path from image and hidden state to mask, and the losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmdet.datasets.views import make_view
from llmdet.models.outputs.mask_decoder import MaskDecoder, original_logits
from llmdet.models.outputs.mask_losses import mask_cross_entropy, mask_dice
from llmdet.models.vision.sam import SamTower
from llmdet.models.vision.segment_anything import config_of, renamed
from llmdet.models.vision.views import collate_views
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import Row, compare_number, compare_recorded, compare_tensor


def check(folder: Path) -> Iterator[Row]:
    """Compare everything that a folder records."""
    if (folder / "model_config.json").exists():
        yield from _masks(folder, read_json(folder / "model_config.json"))
    else:
        recorded, tensors = read_json(folder / "expected.json"), read_tensors(folder / "tensors.pt")
        yield from _functions(recorded["functions"], tensors)
        yield from _totals(recorded, tensors)


def load_parts(tower: SamTower, decoder: MaskDecoder, weights: Mapping[str, Tensor]) -> None:
    """Fill both with weights of segment_anything."""
    ours = renamed(weights)
    places = {
        "vision_encoder.": tower.encoder,
        "mask_decoder.": decoder.decoder,
        "shared_image_embedding.": decoder.positions,
        "prompt_encoder.no_mask_embed.": decoder.no_mask,
    }
    for prefix, module in places.items():
        part = {k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)}
        module.load_state_dict(part)


@torch.no_grad()
def _masks(folder: Path, config: Mapping[str, Any]) -> Iterator[Row]:
    weights = {k: v.float().clone() for k, v in read_tensors(folder / "state_dict.pt").items()}
    settings = config_of(renamed(weights), config["dec_heads"]).to_dict()
    tower, decoder = SamTower(settings, False), MaskDecoder(settings, False)
    load_parts(tower, decoder, weights)
    images = read_tensors(folder / "images_rgb_uint8_hwc.pt")
    views = [
        make_view(np.ascontiguousarray(images[name].numpy()[..., ::-1]), tower.view)
        for name in sorted(images)
    ]
    view = collate_views(views)
    seen = tower(view)
    counts = read_json(folder / "inputs.json")["n_seg_per_image"]
    prompts = _prompt_map(weights)(read_tensors(folder / "inputs.pt")["seg_hidden_states"].float())
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = {
        "grounding_enc_images": view.pixels,
        "image_embeddings": seen.maps[0],
        "text_hidden_fcs.out": prompts,
        "dense_pe": decoder._places(seen.maps[0].shape[2:]),
        "dense_embeddings": decoder.no_mask.weight.view(1, -1, 1, 1).expand_as(seen.maps[0]),
    }
    decoded = decoder(seen, prompts, image).split(counts)
    for number, (logits, asked) in enumerate(zip(decoded, prompts.split(counts), strict=True)):
        masks = original_logits(logits, view.frame, number)
        found[f"img{number}.sparse_embeddings"] = asked[:, None]
        found[f"img{number}.low_res_masks"] = logits[:, None]
        found[f"img{number}.pred_masks"] = masks
        found[f"img{number}.pred_masks>0"] = masks > 0
    recorded = read_tensors(folder / "expected.pt")
    kept = {name: value for name, value in recorded.items() if name.split("[")[0] in found}
    yield from compare_recorded(kept, lambda name, _: found.get(name))


def _prompt_map(weights: Mapping[str, Tensor]) -> nn.Module:
    """From hidden states to prompts, as GLaMM has it."""
    prefix = "model.text_hidden_fcs.0."
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    wide, narrow = state["0.weight"], state["2.weight"]
    layers = nn.Sequential(nn.Linear(*wide.shape[::-1]), nn.ReLU(), nn.Linear(*narrow.shape[::-1]))
    layers.load_state_dict(state)
    return layers


def _functions(recorded: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[Row]:
    for case, values in recorded.items():
        for name, loss in (("bce", mask_cross_entropy), ("dice", mask_dice)):
            logits = tensors[f"fn.{case}.logits"].clone().requires_grad_()
            value = loss(logits, tensors[f"fn.{case}.targets"]).sum() / (values["n"] + 1e-8)
            yield compare_number(f"{case}/{name}", values[name], float(value.detach()))
            (gradient,) = torch.autograd.grad(value, logits)
            expected = tensors[f"fn.{case}.grad_{name}"]
            yield compare_tensor(f"{case}/{name} gradient", expected, gradient)


def _totals(recorded: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[Row]:
    """The losses of whole batches, whose masks are one list to us whatever image they are of."""
    weights = recorded["weights"]
    for case, values in recorded["full_loss"].items():
        if "mask_loss" not in values or not sum(values["n_pred"] or ()):
            continue
        total = {"bce": 0.0, "dice": 0.0}
        for image, count in enumerate(values["n_pred"]):
            logits = tensors[f"full.{case}.img{image}.logits"]
            targets = tensors[f"full.{case}.img{image}.targets"][:count]
            total["bce"] += float(mask_cross_entropy(logits, targets).sum())
            total["dice"] += float(mask_dice(logits, targets).sum())
        masks = sum(values["n_pred"]) + 1e-8
        for name, short in (("mask_bce_loss", "bce"), ("mask_dice_loss", "dice")):
            ours = weights[short] * total[short] / masks
            yield compare_number(f"{case}/{name}", values[name], ours)
