"""Tiny language models, and what a detector would show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmdet.models.lmm.language_model import LanguageModel, VisualTokens
from llmdet.models.lmm.view import DetectorView
from llmdet.models.structures import EncoderOutput, FeaturePyramid

#: Two images of three levels; the second image is smaller and padded.
SHAPES = ((8, 8), (4, 4), (2, 2))
VALID = torch.tensor([[1.0, 1.0], [0.5, 0.75]])
DIMS = 16


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
    """Builds a language model with LoRA and region attention that are not silent."""

    def make(model: Any = None, **changes: Any) -> LanguageModel:
        settings: dict[str, Any] = {
            "dtype": "float32",
            "lora": {"r": 4, "alpha": 8},
            "region_attention": {
                "every": 2,
                "embed_dims": DIMS,
                "num_heads": 4,
                "num_levels": len(SHAPES),
            },
            **changes,
        }
        torch.manual_seed(1)
        lmm = LanguageModel(model or qwen, **settings)
        for parameter in lmm.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
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
def view(encoded: EncoderOutput) -> DetectorView:
    """Two decoder layers of six queries."""
    random = torch.Generator().manual_seed(6)
    hidden = torch.rand(2, 2, 6, DIMS, generator=random)
    boxes = torch.rand(2, 2, 6, 4, generator=random) * 0.4 + 0.1
    return DetectorView(encoded, hidden, boxes)


@pytest.fixture
def regions(view: DetectorView) -> Callable[[LanguageModel], VisualTokens]:
    """Makes one token for each of three regions: two of the first image, one of the second."""
    from llmdet.models.lmm.view import scaled_references

    def make(lmm: LanguageModel) -> VisualTokens:
        random = torch.Generator().manual_seed(7)
        embeds = torch.rand(3, 1, lmm.hidden_size, generator=random)
        boxes = torch.rand(3, 1, 4, generator=random) * 0.4 + 0.2
        ratios = view.encoded.pyramid.valid_ratios[[0, 0, 1]]
        return VisualTokens(embeds, (2, 1), scaled_references(boxes, ratios))

    return make
