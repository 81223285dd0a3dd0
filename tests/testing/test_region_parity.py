"""Regions as tokens equal the original's, with its faults asked for by name."""

import shutil

import pytest
import torch

from llmdet.testing.parity import regions


def failures(folder):
    rows = list(regions.check(folder))
    assert rows
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize("kind", ["splice", "region_cls"])
def test_regions_equal_the_original(kind, root):
    assert not failures(root / "tests/golden/regions" / kind)


def test_the_region_extractor_equals_the_original(golden):
    assert not failures(golden / "regions/public/spatialrgpt/region_extractor")


def test_a_difference_is_found(root, tmp_path):
    folder = shutil.copytree(root / "tests/golden/regions/splice", tmp_path / "splice")
    weights = torch.load(folder / "state_dict.pt", weights_only=True)
    weights["region_extractor.rgb_projector.bias"] += 0.01
    torch.save(weights, folder / "state_dict.pt")
    wrong = {row.name for row in failures(folder)}
    assert "two_prompts/text_rows.0" in wrong
    assert "two_prompts/labels" not in wrong
