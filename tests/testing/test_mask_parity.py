"""Masks and what they cost equal the original's."""

import shutil

import pytest
import torch

from llmdet.testing.parity import fused_regions, mask_model, mask_text, masks


def failures(folder):
    rows = list(masks.check(folder))
    assert rows
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize("kind", ["sam_mask_path", "mask_losses"])
def test_masks_equal_the_original(kind, root):
    assert not failures(root / "tests/golden/regions" / kind)


@pytest.mark.parametrize("kind", ["sam_mask_path", "losses"])
def test_masks_equal_the_original_on_full_recordings(kind, golden):
    assert not failures(golden / "regions/public/glamm" / kind)


def test_a_difference_is_found(root, tmp_path):
    folder = shutil.copytree(root / "tests/golden/regions/sam_mask_path", tmp_path / "masks")
    weights = torch.load(folder / "state_dict.pt", weights_only=True)
    key = "model.grounding_encoder.mask_decoder.mask_tokens.weight"
    weights[key] = weights[key] + 0.1
    torch.save(weights, folder / "state_dict.pt")
    wrong = {row.name for row in failures(folder)}
    assert "img0.low_res_masks" in wrong
    assert "image_embeddings" not in wrong


@pytest.mark.slow
def test_features_of_regions_equal_the_original(golden):
    rows = list(fused_regions.check(golden / "regions/public/glamm/region_encoder"))
    assert rows
    assert not [row for row in rows if not row.passed]


def test_questions_and_answers_equal_the_original(root):
    rows = list(mask_text.check(root / "tests/golden/regions/eval_postprocess"))
    rows += mask_text.conversations(root / "tests/golden/regions/text_pipeline")
    assert len(rows) > 80
    assert not [row for row in rows if not row.passed]


def test_questions_and_answers_equal_the_original_on_full_recordings(golden):
    folder = golden / "regions/public/glamm"
    rows = [*mask_text.check(folder / "eval_postprocess")]
    rows += mask_text.conversations(folder / "text_pipeline")
    assert not [row for row in rows if not row.passed]


def test_a_whole_model_equals_the_original(root):
    rows = list(mask_model.check(root / "tests/golden/regions/full_model"))
    assert {row.name.partition(".")[0] for row in rows} == {"train", "region", "generate"}
    assert not [row for row in rows if not row.passed]


@pytest.mark.slow
def test_a_whole_model_equals_the_original_on_full_recordings(golden):
    rows = list(mask_model.check(golden / "regions/public/glamm/full_model"))
    assert not [row for row in rows if not row.passed]
