"""Tiny language models, and what a detector would show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmdet.models.language.language_model import LanguageModel
from llmdet.models.regions.base import RegionBatch, batch_regions
from llmdet.models.structures import EncoderOutput, FeaturePyramid
from llmdet.models.systems.llmdet.adapter import RegionAttentionAdapter
from llmdet.models.vision.detector_memory import DetectorOutput, detector_output
from llmdet.models.vision.views import Frame

#: Two images of three levels; the second image is smaller and padded.
SHAPES = ((8, 8), (4, 4), (2, 2))
VALID = torch.tensor([[1.0, 1.0], [0.5, 0.75]])
DIMS = 16
LOOK = {"every": 2, "embed_dims": DIMS, "num_heads": 4, "num_levels": len(SHAPES)}


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_qwen

    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(params=["qwen", "llama"])
def folder(request: pytest.FixtureRequest) -> str:
    """Each kind of language model in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def make_lmm(qwen: str) -> Callable[..., LanguageModel]:
    """Builds a language model with LoRA, and with region attention where ``look`` has settings.

    Nothing of it is silent. The adapter of region attention is ``lmm.adapter``.
    """

    def make(model: Any = None, look: Any = None, **changes: Any) -> LanguageModel:
        adapter = None if look is None else RegionAttentionAdapter(**look)
        settings = {"dtype": "float32", "lora": {"r": 4, "alpha": 8}, **changes}
        torch.manual_seed(1)
        lmm = LanguageModel(model or qwen, adapter=adapter, **settings)
        for parameter in lmm.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        object.__setattr__(lmm, "adapter", adapter)
        return lmm

    return make


def make_encoded(dims: int = DIMS) -> EncoderOutput:
    """Random memory of two images, the second of which is padded."""
    pixels = sum(h * w for h, w in SHAPES)
    memory = torch.rand(2, pixels, dims, generator=torch.Generator().manual_seed(5))
    ratios = VALID[:, None].expand(-1, len(SHAPES), -1)
    masks = []
    for height, width in SHAPES:
        row = torch.arange(height)[:, None] >= VALID[:, 1, None, None] * height
        column = torch.arange(width) >= VALID[:, 0, None, None] * width
        masks.append((row | column).flatten(1))
    pyramid = FeaturePyramid(
        feat=memory,
        pos=memory,
        padding_mask=torch.cat(masks, 1),
        shapes=SHAPES,
        spatial_shapes=torch.tensor(SHAPES),
        level_start_index=torch.tensor([0, 64, 80]),
        valid_ratios=ratios,
    )
    return EncoderOutput(memory=memory, text=None, pyramid=pyramid)  # type: ignore[arg-type]


@pytest.fixture
def encoded() -> EncoderOutput:
    return make_encoded()


@pytest.fixture
def frame() -> Frame:
    """Two images in views of 64 x 64 pixels, the second at half its size."""
    scale = torch.tensor([[1.0, 1.0], [0.5, 0.5]])
    sizes = ((64, 64), (48, 32)), ((64, 64), (96, 64))
    return Frame(scale, torch.zeros(2, 2), *sizes, size=(64, 64))


@pytest.fixture
def seen(encoded: EncoderOutput, frame: Frame) -> DetectorOutput:
    """Memory, and six queries of one decoder layer."""
    random = torch.Generator().manual_seed(6)
    queries = torch.rand(2, 6, DIMS, generator=random)
    boxes = torch.rand(2, 6, 4, generator=random) * 0.4 + 0.1
    scores = torch.rand(2, 6, generator=random)
    return detector_output(encoded, frame, queries, boxes, scores)


@pytest.fixture
def three_regions() -> RegionBatch:
    """Two regions of the first image, one of the second, by their queries."""
    return batch_regions([2, 1], torch.device("cpu"), queries=torch.tensor([0, 1, 2]))
