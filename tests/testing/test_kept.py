"""What towers see of images, kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from llmdet.errors import DataError
from llmdet.registry import MODELS
from llmdet.testing.kept import join, look_at_files
from llmdet.testing.region_models import TINY_CLIP


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (40, 60, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def tower():
    return MODELS.build({"type": "TransformersTower", "model": TINY_CLIP}).eval()


def test_images_are_kept_one_by_one_and_are_together_what_they_were(folder, tower):
    kept = look_at_files(tower, folder, ["a.png", "b.png"])
    both = join([kept["a.png"], kept["b.png"]])
    swapped = join([kept["b.png"], kept["a.png"]])
    assert both.maps[0].shape[0] == 2
    torch.testing.assert_close(both.maps[0], swapped.maps[0].flip(0))
    assert not torch.equal(both.maps[0][0], both.maps[0][1])


def test_no_image_keeps_what_was_seen_of_the_others(folder, tower):
    for levels in (0, 1):
        for seen in look_at_files(tower, folder, ["a.png", "b.png"], levels=levels).values():
            assert seen.tokens.untyped_storage().nbytes() == 0
            assert len(seen.maps) == levels
            for part in seen.maps:
                assert part.untyped_storage().nbytes() == part.nbytes


def test_a_file_that_is_no_picture_is_named(folder, tower):
    with pytest.raises(DataError, match=r"missing\.png"):
        look_at_files(tower, folder, ["missing.png"])
