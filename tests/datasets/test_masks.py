"""Masks of annotations as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from llmdet.datasets.masks import decode_mask
from llmdet.errors import DataError

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True
COMPRESSED = coco_mask.encode(np.asfortranarray(MASK.astype(np.uint8)))
FORMS = {
    "polygons": [[2, 1, 5, 1, 5, 3, 2, 3]],
    "two polygons": [[2, 1, 4, 1, 4, 3, 2, 3], [4, 1, 5, 1, 5, 3, 4, 3]],
    "runs": {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]},
    "bytes": COMPRESSED,
    "text": {"size": [4, 6], "counts": COMPRESSED["counts"].decode()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_pixels(form):
    decoded = decode_mask(FORMS[form], (4, 6))
    assert decoded.dtype == bool
    assert np.array_equal(decoded, MASK)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"size \[4, 6\], but its image \[6, 4\]"):
        decode_mask(FORMS["runs"], (6, 4))
