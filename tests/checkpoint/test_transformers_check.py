"""What exactly transformers' MM-Grounding-DINO computes otherwise, with bert-base-uncased's ids."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from llmdet.checkpoint import convert_checkpoint, write_checkpoint
from llmdet.checkpoint.transformers_check import (
    closing_ids,
    corrected_text_positions,
    measure_deviation,
)
from llmdet.testing.models import tiny_config, tiny_grounding_dino
from llmdet.testing.oracle import EXCHANGEABLE, bert_with_published_ids, build_pair, run_ours

WORDS = ["red circle. blue square. ", "green star. large dog. cat. "]
NAMES = ["cat. dog. ", "dog. cat. "]  # one token each
STOPS = [". ? . ", ". . . "]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return build_pair(bert_with_published_ids(tmp_path_factory.mktemp("bert")))


@torch.no_grad()
def difference(pair, texts: list[str], **corrected: bool) -> float:
    """Largest difference of boxes and logits; transformers' class unchanged without arguments."""
    ours, theirs = pair
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = run_ours(ours, images, texts, [(64, 96)] * 2)
    tokenizer = ours.language_model.tokenizer
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    ids = closing_ids(tokenizer)
    with corrected_text_positions(ids, **corrected) if corrected else nullcontext():
        output = theirs(pixel_values=images, **tokens)
    logits = output.logits[..., : tokens.input_ids.shape[1]].double()
    finite = torch.isfinite(logits)
    boxes = (output.pred_boxes - expected["boxes"]).abs().max()
    return max(float(boxes), float((logits - expected["logits"])[finite].abs().max()))


def test_the_unchanged_class_equals_ours_where_all_positions_are_zero(pair):
    assert difference(pair, STOPS) < 1e-6


@pytest.mark.parametrize("texts", [WORDS, NAMES, STOPS])
def test_with_both_places_corrected_it_equals_ours_on_every_prompt(pair, texts):
    assert difference(pair, texts, stops=True, encoding=True) < 1e-6


@pytest.mark.parametrize("texts", [WORDS, NAMES])
def test_neither_place_alone_is_enough(pair, texts):
    assert difference(pair, texts) > 0.1
    assert difference(pair, texts, stops=True, encoding=False) > 0.1
    assert difference(pair, texts, stops=False, encoding=True) > 0.1


@pytest.mark.parametrize("texts", [WORDS, NAMES, STOPS])
def test_masks_are_right_and_positions_wrong_at_the_stops_alone(pair, texts):
    from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as module

    language_model = pair[0].language_model
    tokens = language_model.tokenizer(texts, padding=True, return_tensors="pt").input_ids
    masks, positions = module.generate_masks_with_special_tokens_and_transfer_map(tokens)
    text = language_model(texts)
    assert torch.equal(masks, text.attention_mask)
    stops = torch.isin(tokens, torch.tensor(closing_ids(language_model.tokenizer)))
    assert torch.equal(positions[~stops], text.position_ids[~stops])
    assert not positions[stops].any()


def test_the_deviation_of_an_export_is_measured(tmp_path):
    bert = bert_with_published_ids(tmp_path / "bert")
    model = tiny_grounding_dino(bert, seed=1, **EXCHANGEABLE)
    write_checkpoint(tmp_path / "llmdet.pth", model.state_dict())
    settings = tiny_config(bert, **EXCHANGEABLE)
    folder = tmp_path / "folder"
    convert_checkpoint(
        tmp_path / "llmdet.pth", folder, target_format="transformers", model=settings
    )
    deviation = measure_deviation(folder)
    assert deviation.knows_ids
    assert deviation.score > 1e-3
    assert 0 <= deviation.overlap < 1
    assert f"up to {deviation.score:.2g}" in deviation.sentence()
