"""An independent implementation to compare with: transformers' MM-Grounding-DINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmdet.checkpoint.transformers_check import closing_ids, corrected_text_positions
from llmdet.datasets.toy.models import WORDS, wordpiece_vocabulary

if TYPE_CHECKING:
    from llmdet.models.detectors.grounding_dino import GroundingDINO

_ATTENTION = {"embed_dims": 64, "num_heads": 4, "dropout": 0.0}
_DEFORMABLE = {"embed_dims": 64, "num_heads": 8, "num_levels": 4, "dropout": 0.0}
_FFN = {"embed_dims": 64, "feedforward_channels": 96, "ffn_drop": 0.0}

#: Changes that give the tiny detector sizes which transformers' model can have.
EXCHANGEABLE: dict[str, Any] = {
    "neck": {"out_channels": 64, "norm_cfg": {"type": "GN", "num_groups": 32}},
    "encoder": {
        "layer_cfg": {"self_attn_cfg": _DEFORMABLE, "ffn_cfg": _FFN},
        "text_layer_cfg": {
            "self_attn_cfg": _ATTENTION,
            "ffn_cfg": {**_FFN, "feedforward_channels": 48},
        },
        "fusion_layer_cfg": {"v_dim": 64, "l_dim": 64, "embed_dim": 48},
    },
    "decoder": {
        "layer_cfg": {
            "self_attn_cfg": {**_ATTENTION, "num_heads": 8},
            "cross_attn_text_cfg": {**_ATTENTION, "num_heads": 8},
            "cross_attn_cfg": _DEFORMABLE,
            "ffn_cfg": _FFN,
        }
    },
    "positional_encoding": {"num_feats": 32},
}


def build_pair(bert: str, seed: int = 0) -> tuple[GroundingDINO, Any]:
    """Build our tiny detector and transformers' model with the same weights, in float64.

    Args:
        bert: folder of a tiny BERT.
        seed: of the weights.
    """
    from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

    from llmdet.checkpoint import config_from_state_dict, llmdet_to_transformers
    from llmdet.testing.models import tiny_config, tiny_grounding_dino

    ours = tiny_grounding_dino(bert, seed=seed, **EXCHANGEABLE).double()
    weights = ours.state_dict()
    settings = config_from_state_dict(weights, tiny_config(bert, **EXCHANGEABLE))
    # Loading renames published keys to those of the module, which load_state_dict does not.
    theirs = MMGroundingDinoForObjectDetection.from_pretrained(
        None,
        config=MMGroundingDinoConfig(**settings),
        state_dict=llmdet_to_transformers(weights),
        dtype=torch.float64,
    )
    return ours, theirs.eval()


def bert_with_published_ids(folder: str | Path) -> str:
    """Write a tiny BERT whose special tokens have their ids of bert-base-uncased.

    transformers' MM-Grounding-DINO knows these ids alone.
    """
    from transformers import BertConfig, BertModel, BertTokenizer

    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
    words = [word for word in wordpiece_vocabulary(WORDS) if word not in special.values()]
    tokens = [special.get(index, f"[unused{index}]") for index in range(1030)] + words
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def run_ours(
    model: GroundingDINO, images: Tensor, texts: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """Run our stages on normalised images [B, 3, H, W], padded from ``sizes`` (height, width)."""
    from llmdet.models.transformer.pyramid import valid_level_sizes

    feats = model.extract_feat(images)
    padded = (images.shape[-2], images.shape[-1])
    shapes = [(feat.shape[-2], feat.shape[-1]) for feat in feats]
    pyramid = model.pyramid(feats, valid_level_sizes(sizes, padded, shapes))
    encoded = model.encode(pyramid, model.encode_text(texts))
    proposals = model.propose(encoded)
    decoded = model.decode(encoded, proposals)
    head = model.bbox_head(decoded, encoded.text)
    return {
        "memory": encoded.memory,
        "memory_text": encoded.text.embedded,
        "two_stage_scores": proposals.logits.amax(-1),
        "two_stage_boxes": proposals.boxes,
        "hidden_states": decoded.hidden_states,
        "references": decoded.references[1:],
        "logits": head.logits[-1],
        "boxes": head.boxes[-1],
    }


@torch.no_grad()
def run_theirs(
    theirs: Any, ours: GroundingDINO, images: Tensor, texts: Sequence[str], pixel_mask: Tensor
) -> dict[str, Tensor]:
    """Run transformers' model on the same input and name its outputs as :func:`run_ours` does."""
    language_model = ours.language_model
    tokens = language_model.tokenizer(list(texts), padding=True, return_tensors="pt")
    with corrected_text_positions(closing_ids(language_model.tokenizer)):
        output = theirs(pixel_values=images, pixel_mask=pixel_mask, **tokens)
    length = tokens["input_ids"].shape[1]
    return {
        "memory": output.encoder_last_hidden_state_vision,
        "memory_text": output.encoder_last_hidden_state_text,
        "two_stage_scores": output.enc_outputs_class.amax(-1).topk(ours.num_queries).values,
        "two_stage_boxes": output.encoder_pred_boxes,
        "hidden_states": output.intermediate_hidden_states.transpose(0, 1),
        "references": output.intermediate_reference_points.transpose(0, 1),
        "logits": output.logits[..., :length],
        "boxes": output.pred_boxes,
    }
