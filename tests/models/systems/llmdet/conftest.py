"""A tiny LLMDet with a real Qwen2 in it, and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.prompts.conversation import ask

SIZE = 64
LMM = {
    "type": "LanguageModel",
    "dtype": "float32",
    "lora": {"r": 4, "alpha": 8},
    "region_attention": {"every": 2, "num_heads": 4},
}
CAPTIONERS = {
    "image_captioner": {
        "encoder": {"type": "GridCells", "grids": ((-2, 2), (-3, 3))},
        "max_length": 96,
    },
    "region_captioner": {"max_length": 64},
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def make_llmdet(bert: str, qwen: str) -> Callable[..., Any]:
    """Builds the tiny LLMDet; ``lmm=None`` and other settings may be changed."""
    from llmdet.testing.models import tiny_grounding_dino

    def make(**changes: Any) -> Any:
        if "lmm" not in changes or changes["lmm"] is not None:
            changes["lmm"] = {**LMM, "model": qwen, **changes.pop("lmm", {})}
        return tiny_grounding_dino(bert, **{"type": "LLMDet", **CAPTIONERS, **changes})

    return make


IMAGE_CAPTION = ask(
    "<image>\nDescribe the image in detail.", "A red circle is above a blue square."
)
PHRASES = ("Red circle.", "Blue square.")


def region_caption(box: int, phrase: str) -> Any:
    """What is to be said of box number ``box``."""
    return ask(f"<region:{box}>\nDescribe the region in a phrase.", phrase)


def make_sample(boxes: int = 2, *, image: bool = True, regions: bool = True) -> DetDataSample:
    """A training sample of a red circle and a blue square, with or without captions."""
    torch.manual_seed(boxes)
    corner = torch.rand(boxes, 2) * 30
    conversations = [IMAGE_CAPTION] if image else []
    if regions:
        conversations += [region_caption(box, PHRASES[box % 2]) for box in range(boxes)]
    sample = DetDataSample(
        metainfo={
            "text": "a red circle and a blue square",
            "tokens_positive": {0: [[2, 12]], 1: [[19, 30]]},
            "img_shape": (SIZE, SIZE),
            "ori_shape": (2 * SIZE, 2 * SIZE),
            "batch_input_shape": (SIZE, SIZE),
            "scale_factor": (0.5, 0.5),
            "conversations": conversations,
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + 10 + torch.rand(boxes, 2) * 20], 1),
        labels=torch.arange(boxes) % 2,
    )
    return sample


@pytest.fixture
def samples() -> Callable[..., DetDataSample]:
    """Makes training samples; see :func:`make_sample`."""
    return make_sample
