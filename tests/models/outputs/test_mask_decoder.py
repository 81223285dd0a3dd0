"""Masks from prompts: as transformers' own models make them, many of many images at once."""

from __future__ import annotations

import pytest
import torch

from llmdet.models.outputs.mask_decoder import MaskDecoder, original_logits
from llmdet.models.vision.sam import SamTower, build_sam
from llmdet.models.vision.views import Frame, View
from llmdet.testing.region_models import TINY_SAM, TINY_SAM2

FRAME = Frame(
    torch.full((2, 2), 2.0), torch.zeros(2, 2), ((64, 40), (30, 64)), ((32, 20), (15, 32)), (64, 64)
)


@pytest.fixture(params=["sam", "sam2"])
def whole(request, tmp_path):
    torch.manual_seed(0)
    sam = build_sam({"sam": TINY_SAM, "sam2": TINY_SAM2}[request.param]).eval()
    sam.save_pretrained(tmp_path)
    return sam, str(tmp_path)


@torch.no_grad()
def test_masks_are_those_of_transformers(whole):
    sam, folder = whole
    tower, decoder = SamTower(folder), MaskDecoder(folder).eval()
    pixels, prompts = torch.rand(2, 3, 64, 64), torch.rand(5, decoder.dims)
    image = torch.tensor([1, 0, 1, 1, 0])
    ours = decoder(tower(View(pixels, FRAME)), prompts, image)
    embeddings = sam.get_image_embeddings(pixels)
    first = sam.config.model_type == "sam"
    # Which of SAM 2's masks is best is judged by scores that nothing here teaches.
    sam.mask_decoder.dynamic_multimask_via_stability = False
    maps = [embeddings] if first else embeddings
    more = {}
    for number, (prompt, of) in enumerate(zip(prompts, image.tolist(), strict=True)):
        if not first:
            more = {"high_resolution_features": [each[of : of + 1] for each in maps[:-1]]}
        dense = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(1, -1, 4, 4)
        expected, *_ = sam.mask_decoder(
            image_embeddings=maps[-1][of : of + 1],
            image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompt[None, None, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
            **more,
        )
        torch.testing.assert_close(ours[number], expected[0, 0, 0], rtol=1e-4, atol=1e-7)


def test_many_masks_in_steps_are_the_same(whole, monkeypatch):
    _, folder = whole
    tower, decoder = SamTower(folder), MaskDecoder(folder).eval()
    seen = tower(View(torch.rand(2, 3, 64, 64), FRAME))
    prompts, image = torch.rand(7, decoder.dims), torch.tensor([0, 0, 1, 1, 0, 1, 0])
    at_once = decoder(seen, prompts, image)
    monkeypatch.setattr("llmdet.models.outputs.mask_decoder._NUMBERS_AT_ONCE", 600)
    torch.testing.assert_close(decoder(seen, prompts, image), at_once, rtol=1e-4, atol=1e-7)
    assert decoder(seen, prompts[:0], image[:0]).shape == (0, 16, 16)


def test_every_weight_that_trains_has_a_gradient(whole):
    _, folder = whole
    tower, decoder = SamTower(folder), MaskDecoder(folder)
    seen = tower(View(torch.rand(1, 3, 64, 64), FRAME))
    decoder(seen, torch.rand(2, decoder.dims), torch.zeros(2, dtype=torch.long)).sum().backward()
    without = [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_a_mask_lies_in_the_original_where_it_lay_in_the_view():
    logits = torch.full((1, 16, 16), -4.0)
    logits[:, 8:, :5] = 4.0  # rows 32.., columns ..20 of a view of 64 x 64
    mask = original_logits(logits, FRAME, 0)[0] > 0
    assert mask.shape == (32, 20)
    assert mask[16:, :10].all()
    assert mask.sum() == 16 * 10
    assert original_logits(logits[:0], FRAME, 1).shape == (0, 15, 32)
