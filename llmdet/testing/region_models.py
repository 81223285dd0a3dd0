"""A tiny region language model, for tests that need one whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmdet.datasets.toy.models import tiny_qwen
from llmdet.testing.demo import TinyDemo

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
#: Fields of configurations of SAM and SAM 2: views of 64 x 64 pixels, coarsest maps of 4 x 4.
_TINY_PROMPTS = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
_TINY_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
TINY_SAM: dict[str, Any] = {
    "model_type": "sam",
    "initializer_range": 0.2,  # at transformers' own, sizes like these make logits of nothing
    "vision_config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "global_attn_indexes": [1],
        "window_size": 2,
        "output_channels": 16,
        "image_size": 64,
        "num_pos_feats": 8,
    },
    "prompt_encoder_config": _TINY_PROMPTS,
    "mask_decoder_config": _TINY_DECODER,
}
TINY_SAM2: dict[str, Any] = {
    "model_type": "sam2",
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 4],
            "window_positional_embedding_background_size": [4, 4],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    },
    "prompt_encoder_config": _TINY_PROMPTS,
    "mask_decoder_config": _TINY_DECODER,
}
#: Of new rows of the vocabulary, so that they are said about as often as others.
_LOUDER = 60
#: Fields of a configuration of ConvNeXt: views of 64 x 64 pixels, maps of 16 to 2 cells a side.
TINY_CONVNEXT: dict[str, Any] = {
    "model_type": "convnext",
    "hidden_sizes": [8, 8, 16, 32],
    "depths": [1, 1, 2, 1],
    "image_size": 64,
}

#: Names of tensors in transformers -> in open_clip.
_OPEN_CLIP = (
    (r"embeddings\.patch_embeddings\.", "stem.0."),
    (r"embeddings\.layernorm\.", "stem.1."),
    (r"encoder\.stages\.(\d)\.downsampling_layer\.", r"stages.\1.downsample."),
    (r"encoder\.(stages\.\d)\.layers\.(\d)\.dwconv", r"\1.blocks.\2.conv_dw"),
    (r"encoder\.(stages\.\d)\.layers\.(\d)\.layernorm", r"\1.blocks.\2.norm"),
    (r"encoder\.(stages\.\d)\.layers\.(\d)\.pwconv", r"\1.blocks.\2.mlp.fc"),
    (r"encoder\.(stages\.\d)\.layers\.(\d)\.layer_scale_parameter", r"\1.blocks.\2.gamma"),
)


def open_clip_name(name: str) -> str:
    """What a tensor of a ConvNeXt of transformers is called in open_clip."""
    for ours, theirs in _OPEN_CLIP:
        name = re.sub(f"^{ours}", theirs, name)
    return name


def write_open_clip(encoder: Any, path: Path, lead: str = "visual.trunk.") -> dict[str, Any]:
    """Write a ConvNeXt of transformers as a file of open_clip has it; returns its tensors.

    Args:
        encoder: the ConvNeXt.
        path: of the file.
        lead: stands in front of all names of the ConvNeXt; other tensors are there too.
    """
    import torch
    from safetensors.torch import save_file

    weights = {f"{lead}head.norm.weight": torch.ones(2), "text.proj": torch.ones(2)}
    for name, value in encoder.state_dict().items():
        weights[lead + open_clip_name(name)] = value.clone()
    save_file(weights, path)
    return weights


def tiny_clip(folder: str | Path, seed: int = 0) -> str:
    """Write an image encoder with random weights as transformers has it; returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(AutoConfig.for_model(**TINY_CLIP)).save_pretrained(folder)
    return str(folder)


def tiny_depth(folder: Path) -> str:
    """A DPT of random weights, which estimates depth; returns the folder."""
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
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


def with_masks(settings: dict[str, Any], **output: Any) -> dict[str, Any]:
    """The settings of a model that answers with masks, by a tower and a decoder of its own."""
    decoder = {"type": "MaskDecoder", "model": TINY_SAM}
    return {
        **settings,
        "towers": {
            **settings["towers"],
            "sam": {"type": "SamTower", "model": TINY_SAM, "frozen": False},
        },
        "talk": {**settings["talk"], "max_new_tokens": 12},
        "output": {"type": "Mask", "tower": "sam", "decoder": decoder, **output},
    }


def speak_of_masks(model: Any) -> None:
    """Make the tokens of masks as loud as others, which new rows among random weights are not."""
    import torch

    with torch.no_grad():
        model.lmm.causal_lm.get_input_embeddings().added.mul_(_LOUDER)


def tiny_region_demo(
    folder: Path, base: Path | None = None, seed: int = 0, masks: bool = False, **changes: Any
) -> TinyDemo:
    """Write a tiny ``RegionLMM`` as users have one: a config and a slim checkpoint.

    Args:
        folder: gets ``config.py``, ``weights.pth``, ``clip/`` and ``qwen/``.
        base: config that it inherits from, but for the model.
        seed: of the weights that train.
        masks: it answers with masks, which it does now and then.
        changes: of the settings of :func:`tiny_region_lmm`.
    """
    import torch

    from llmdet.checkpoint.frozen import leave_out_frozen
    from llmdet.registry import MODELS

    settings = tiny_region_lmm(tiny_qwen(folder / "qwen"), tiny_clip(folder / "clip"), **changes)
    if masks:
        settings = with_masks(settings)
    written = settings if base is None else {"_delete_": True, **settings}
    lines = [f"model = {written!r}"]
    if base is not None:
        lines.append(f"_base_ = {str(base)!r}")
    config = folder / "config.py"
    config.write_text("\n".join(lines) + "\n")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS.build(settings)
    if masks:
        speak_of_masks(model)
    checkpoint = {"meta": {"processes": 1}, "state_dict": dict(model.state_dict())}
    leave_out_frozen(checkpoint, model)
    torch.save(checkpoint, folder / "weights.pth")
    return TinyDemo(config, folder / "weights.pth")
