"""A ``RegionLMM`` of the sizes and with the weights of a recorded GLaMM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llmdet.checkpoint.systems.glamm import glamm_to_llmdet
from llmdet.models.outputs import Mask
from llmdet.models.outputs.base import Scene
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.models.vision.segment_anything import config_of, renamed
from llmdet.registry import MODELS
from llmdet.testing.parity.fused_regions import SCALE, encoder_sizes
from llmdet.testing.parity.mask_text import AROUND, SYSTEM


class SummedMask(Mask):
    """Masks that count how many of a phrase's parts cover a pixel, as the original learns them."""

    recorded: Mapping[int, Tensor] = {}

    def _targets(self, indices: Sequence[int], image: int, scene: Scene) -> Tensor:
        return self.recorded[image][list(indices)].float()


def build(config: Mapping[str, Any], weights: Mapping[str, Tensor], tokenizer: Path) -> RegionLMM:
    """The recorded model with the faults of the original, its weights loaded strictly."""
    ours = glamm_to_llmdet(weights)
    sam = config_of(renamed(weights), config["sam"]["dec_heads"]).to_dict()
    clip = {"model_type": "clip_vision_model", "hidden_act": config["clip_hidden_act"]}
    clip |= config["clip"]
    last = clip["num_hidden_layers"] + 1 + config["sel"]
    sizes = encoder_sizes(ours)
    layers = [last - 3 * n for n in reversed(range(len(sizes["levels"])))]
    side = clip["image_size"] // clip["patch_size"]
    region = {
        "type": "FusedRoIAlign",
        **sizes,
        "dims": ours["filler.connectors.region.projector.0.weight"].shape[1],
        "legacy_roi_scale": SCALE,
        "legacy_crop": True,
    }
    model = MODELS.build(
        {
            "type": "RegionLMM",
            "towers": {
                "clip": {
                    "type": "TransformersTower",
                    "model": clip,
                    "layers": layers,
                    "view": {"fit": "crop"},
                },
                "sam": {"type": "SamTower", "model": sam},
            },
            "slots": {
                "image": {"tower": "clip", "encoder": {"type": "AverageGrid", "size": side}},
                "region": {
                    "tower": "clip",
                    "encoder": region,
                    "connector": {"type": "MLPConnector", "depth": 1},
                },
            },
            "lmm": {
                "type": "LanguageModel",
                "model": {"model_type": "llama", **config["llama"]},
                "tokenizer": str(tokenizer),
                "frozen": False,
                "dtype": "float32",
            },
            "output": {
                "type": SummedMask,
                "tower": "sam",
                "decoder": {"type": "MaskDecoder", "model": sam},
                "cross_entropy": config["loss_weights"]["bce"],
                "dice": config["loss_weights"]["dice"],
            },
            "talk": {
                "max_length": 1 << 20,
                "system": SYSTEM,
                "template": "vicuna",
                "around": {kind: texts for kind, *texts in AROUND},
                "legacy_blanks": True,
            },
        }
    )
    model.load_state_dict(ours)
    return model
