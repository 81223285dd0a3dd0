"""How far the installed transformers is from the model whose weights a folder holds.

transformers 5.17.0 differs from the model that the weights were trained as in two places, both
about text: the full stop that closes a phrase gets position 0 instead of the phrase's last one,
and the sine encoding of positions is cut to the integers that the positions are. With
bert-base-uncased's ids its attention masks are right; those ids are written into it, so that other
tokenizers get no phrases at all. The rest computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from llmdet.models.text.sub_sentence import sub_sentence_attention
from llmdet.prompts.tokenizers import load_tokenizer

_CLOSING = ("[CLS]", "[SEP]", ".", "?")
_MASKS = "generate_masks_with_special_tokens_and_transfer_map"
_ENCODE = "encode_sinusoidal_position_embedding"
_TEXT = "person. traffic light. red ball on the grass. dog."
_SIZE = (320, 480)  # height and width in pixels
_BEST = 10  # detections that are compared


@dataclass(frozen=True)
class Deviation:
    """What the defects change on one picture, over the best detections."""

    version: str  # of transformers
    score: float  # largest difference of a score, in 0..1
    overlap: float  # least IoU of a box with the one that it should be
    knows_ids: bool  # whether the tokenizer has the ids that transformers looks for

    def sentence(self) -> str:
        """What a user should know of it."""
        if self.score < 1e-5 and self.overlap > 1 - 1e-4:
            return f"transformers {self.version} computes the same from these weights as LLMDet"
        ids = "" if self.knows_ids else ", and it does not know this tokenizer's special tokens"
        return (
            f"transformers {self.version} computes other detections from these weights than "
            "LLMDet: it places full stops at position 0 and cuts the encoding of text positions "
            f"to integers{ids}; on a test picture the {_BEST} best scores change by up to "
            f"{self.score:.2g}, and boxes overlap theirs by at least {self.overlap:.2f}"
        )


@torch.no_grad()
def measure_deviation(folder: str | Path) -> Deviation:
    """Run transformers' class on a test picture as it is, and with its defects corrected.

    Args:
        folder: weights, configuration and tokenizer, as :func:`convert_checkpoint` writes them.
    """
    import transformers
    from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as module

    tokenizer = load_tokenizer(str(folder), "the exported folder")
    model = transformers.MMGroundingDinoForObjectDetection.from_pretrained(folder).eval()
    tokens = tokenizer([_TEXT], return_tensors="pt")
    ids = closing_ids(tokenizer)
    with corrected_text_positions(ids):
        right = model(pixel_values=_picture(), **tokens)
    stock = model(pixel_values=_picture(), **tokens)
    scores, boxes = _best(right)
    found, _ = _best(stock)
    # The nearest of all boxes: the order of the queries is no part of the answer.
    overlap = box_iou(_corners(boxes), _corners(stock.pred_boxes[0])).amax(1)
    return Deviation(
        version=transformers.__version__,
        score=float((scores - found).abs().max()),
        overlap=float(overlap.min()),
        knows_ids=sorted(ids) == sorted(module.SPECIAL_TOKENS),
    )


def closing_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that close a phrase."""
    return tokenizer.convert_tokens_to_ids(list(_CLOSING))


@contextmanager
def corrected_text_positions(
    closing: Sequence[int], *, stops: bool = True, encoding: bool = True
) -> Iterator[None]:
    """Correct transformers' defects while its model runs.

    Args:
        closing: ids of the tokens that close a phrase, see :func:`closing_ids`.
        stops: correct masks and positions of phrases.
        encoding: correct the sine encoding of positions.
    """
    from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as module

    masks, encode = getattr(module, _MASKS), getattr(module, _ENCODE)

    def corrected_masks(input_ids: Tensor) -> tuple[Tensor, Tensor]:
        special = torch.tensor(closing, device=input_ids.device)
        return sub_sentence_attention(input_ids, input_ids != 0, special)

    def corrected_encode(positions: Tensor, *args: Any, **sizes: Any) -> Tensor:
        floating = positions if positions.is_floating_point() else positions.float()
        return encode(floating, *args, **sizes)

    if stops:
        setattr(module, _MASKS, corrected_masks)
    if encoding:
        setattr(module, _ENCODE, corrected_encode)
    try:
        yield
    finally:
        setattr(module, _MASKS, masks)
        setattr(module, _ENCODE, encode)


def _picture() -> Tensor:
    """Normalised pixels [1, 3, H, W] of coloured blocks, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(1, 3, 8, 12, generator=generator)
    return torch.nn.functional.interpolate(blocks, _SIZE, mode="bilinear")


def _best(output: Any) -> tuple[Tensor, Tensor]:
    """Scores [k] and boxes [k, 4] cxcywh of the best queries."""
    scores, order = output.logits[0].amax(-1).sigmoid().sort(descending=True)
    return scores[:_BEST], output.pred_boxes[0, order[:_BEST]]


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
