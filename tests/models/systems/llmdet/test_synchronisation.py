"""Caption losses wait for no device: see ``tests/models/detectors/test_synchronisation.py``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llmdet.models.quirks import Quirks
from llmdet.models.structures import Matches
from llmdet.models.systems.llmdet.building import build_language
from llmdet.models.systems.llmdet.teaching import image_regions, matched_regions
from llmdet.prompts.conversation import ask_of_image, ask_of_region


@pytest.fixture
def mode():
    return FakeTensorMode(allow_non_fake_inputs=True)


def on_device(value):
    """The same on a GPU that need not exist: shapes without values."""
    if isinstance(value, torch.nn.Module):
        for part in value.modules():
            for name, tensor in part.named_parameters(recurse=False):
                part._parameters[name] = torch.nn.Parameter(on_device(tensor), tensor.requires_grad)
            for name, tensor in part.named_buffers(recurse=False):
                part._buffers[name] = on_device(tensor)
        return value
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="cuda")
    if is_dataclass(value):
        moved = {field.name: on_device(getattr(value, field.name)) for field in fields(value)}
        return replace(value, **moved)
    is_tensors = isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor)
    return tuple(map(on_device, value)) if is_tensors else value


def test_neither_caption_loss_asks_the_device_for_anything(qwen, seen, mode):
    parts = build_language(
        {
            "type": "LanguageModel",
            "model": qwen,
            "dtype": "float32",
            "lora": {"r": 4},
            "region_attention": {"every": 2, "num_heads": 4},
        },
        {"encoder": {"type": "GridCells", "grids": ((-1, 2), (-2, 3))}, "look": True},
        {},
        embed_dims=seen.tokens.shape[-1],
        num_levels=len(seen.maps),
        quirks=Quirks(),
    )
    conversations = [
        (ask_of_image("A red circle."), ask_of_region(1, "A large blue circle.")),
        (ask_of_region(0, "Square."),),
    ]
    image, region = parts.image_captioner, parts.region_captioner
    tokens = {c: [c.tokenized(batch) for batch in conversations] for c in (image, region)}
    with mode:
        for part in (parts.lmm, image, region):
            on_device(part)
        away = on_device(seen)
        cuda = torch.device("cuda")
        flat = [one for batch in tokens[image] for one in batch]
        losses = [image.loss(parts.lmm, away, image_regions(tokens[image], cuda), flat)]
        index = (torch.empty(2, dtype=torch.long, device=cuda),) * 2
        boxes = [torch.empty(2, 4, device=cuda)] * 2
        regions, known = matched_regions(tokens[region], Matches(index, index), boxes, away)
        losses.append(region.loss(parts.lmm, away, regions, known))
    assert [loss.device.type for loss in losses] == ["cuda", "cuda"]


def test_as_many_boxes_as_queries_are_all_matched_and_need_no_look(seen, mode):
    with mode:
        away = on_device(seen)
        count = seen.queries.shape[1]
        index = (torch.empty(count, dtype=torch.long, device="cuda"),) * 2
        boxes = [torch.empty(count, 4, device="cuda")] * 2
        regions, known = matched_regions([(), ()], Matches(index, index), boxes, away)
    assert regions.counts == (0, 0)
    assert known == []
