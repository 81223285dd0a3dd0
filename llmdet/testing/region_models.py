"""A tiny region language model, for tests that need one whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Fields of a configuration of CLIP's image encoder: views of 28 x 28 pixels, 16 patches.
TINY_CLIP: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


def tiny_clip(folder: str | Path, seed: int = 0) -> str:
    """Write an image encoder with random weights as transformers has it; returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(AutoConfig.for_model(**TINY_CLIP)).save_pretrained(folder)
    return str(folder)


def tiny_region_lmm(qwen: str, tower: Any = TINY_CLIP, **changes: Any) -> dict[str, Any]:
    """Settings of a ``RegionLMM`` of RegionGPT's parts, whose language model trains.

    Args:
        qwen: folder of the language model.
        tower: folder of the image encoder, or fields of its configuration.
        changes: of the settings.
    """
    return {
        "type": "RegionLMM",
        "towers": {
            "clip": {
                "type": "RefinedTower",
                "tower": {"type": "TransformersTower", "model": tower},
                "refinement": "deconv",
            }
        },
        "slots": {
            "image": {"tower": "clip", "encoder": {"type": "AverageGrid", "size": 2}},
            "region": {"tower": "clip", "encoder": {"type": "MaskPool"}, "connector": "image"},
        },
        "lmm": {"type": "LanguageModel", "model": qwen, "dtype": "float32", "frozen": False},
        "talk": {"max_length": 200, "max_new_tokens": 4, "system": None},
        **changes,
    }
