"""A tiny LLMDet with a real Qwen2 in it, and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

SIZE = 64
LMM = {
    "type": "LanguageModel",
    "dtype": "float32",
    "lora": {"r": 4, "alpha": 8},
    "region_attention": {"every": 2, "num_heads": 4},
}
CAPTIONERS = {
    "image_captioner": {"grids": ((-2, 2), (-3, 3)), "max_length": 96},
    "region_captioner": {"max_length": 64},
}


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_qwen

    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


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


def make_sample(boxes: int = 2, *, image: bool = True, regions: bool = True) -> DetDataSample:
    """A training sample of a red circle and a blue square, with or without captions."""
    torch.manual_seed(boxes)
    corner = torch.rand(boxes, 2) * 30
    sample = DetDataSample(
        metainfo={
            "text": "a red circle and a blue square",
            "tokens_positive": {0: [[2, 12]], 1: [[19, 30]]},
            "img_shape": (SIZE, SIZE),
            "ori_shape": (2 * SIZE, 2 * SIZE),
            "batch_input_shape": (SIZE, SIZE),
            "scale_factor": (0.5, 0.5),
            "image_caption": {
                "prompt": "Describe the image in detail.",
                "answer": "A red circle is above a blue square.",
            },
            "region_captions": {
                "box_index": list(range(boxes)),
                "answers": ["Red circle.", "Blue square."] * (boxes // 2)
                + ["Red circle."] * (boxes % 2),
            },
        }
    )
    if not image:
        sample.set_metainfo({"image_caption": None})
    if not regions:
        sample.set_metainfo({"region_captions": None})
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + 10 + torch.rand(boxes, 2) * 20], 1),
        labels=torch.arange(boxes) % 2,
    )
    return sample


@pytest.fixture
def samples() -> Callable[..., DetDataSample]:
    """Makes training samples; see :func:`make_sample`."""
    return make_sample
