"""Small detectors of every format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmdet.datasets.toy.models import tiny_qwen

    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def exchangeable() -> dict[str, Any]:
    """Changes that give the tiny detector sizes which transformers' model can have."""
    attention = {"embed_dims": 32, "num_heads": 4, "dropout": 0.0}
    deformable = {"embed_dims": 32, "num_heads": 8, "num_levels": 4, "dropout": 0.0}
    ffn = {"embed_dims": 32, "feedforward_channels": 64, "ffn_drop": 0.0}
    dense = {"embed_dims": 32, "num_heads": 8, "dropout": 0.0}
    return {
        "neck": {"norm_cfg": {"type": "GN", "num_groups": 32}},
        "encoder": {
            "layer_cfg": {"self_attn_cfg": deformable, "ffn_cfg": ffn},
            "text_layer_cfg": {
                "self_attn_cfg": attention,
                "ffn_cfg": {**ffn, "feedforward_channels": 32},
            },
            "fusion_layer_cfg": {"embed_dim": 32},
        },
        "decoder": {
            "layer_cfg": {
                "self_attn_cfg": dense,
                "cross_attn_text_cfg": dense,
                "cross_attn_cfg": deformable,
                "ffn_cfg": ffn,
            }
        },
    }


@pytest.fixture
def detector(bert: str) -> Callable[..., Any]:
    """Builds the tiny detector."""
    from llmdet.testing.models import tiny_grounding_dino

    return lambda **changes: tiny_grounding_dino(bert, **changes)


@pytest.fixture
def llmdet(bert: str, qwen: str) -> Callable[..., Any]:
    """Builds the tiny detector with a language model, LoRA and region attention."""
    from llmdet.testing.models import tiny_grounding_dino

    lmm = {
        "type": "LanguageModel",
        "model": qwen,
        "dtype": "float32",
        "lora": {"r": 4, "alpha": 8},
        "region_attention": {"every": 2, "num_heads": 4},
    }
    return lambda **changes: tiny_grounding_dino(
        bert,
        **{
            "type": "LLMDet",
            "lmm": lmm,
            "image_captioner": {"encoder": {"type": "GridCells", "grids": ((-2, 2), (-3, 3))}},
            "region_captioner": {},
            **changes,
        },
    )
