"""Small parts of a transformer and what goes into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from llmdet.models.structures import FeaturePyramid, TextFeatures
from llmdet.models.transformer.positions import SinePositionalEncoding
from llmdet.models.transformer.pyramid import build_pyramid

DIMS, LEVELS = 16, 2


def make_pyramid(
    shapes: Sequence[tuple[int, int]] = ((6, 8), (3, 4)),
    batch: int = 2,
    valid: Sequence[Sequence[tuple[int, int]]] | None = None,
    dims: int = DIMS,
    dtype: torch.dtype = torch.float32,
) -> FeaturePyramid:
    """Random maps; ``valid`` gives per level and image the part that is not padding."""
    sizes = valid or [[shape] * batch for shape in shapes]
    feats = [torch.randn(batch, dims, *shape, dtype=dtype) for shape in shapes]
    encoding = SinePositionalEncoding(dims // 2, temperature=20, normalize=True)
    return build_pyramid(feats, sizes, torch.randn(len(shapes), dims, dtype=dtype), encoding)


def make_text(lengths: Sequence[int] = (5, 3), dims: int = DIMS) -> TextFeatures:
    """Random tokens, padded to the longest; a phrase is two tokens that see each other."""
    longest = max(lengths)
    places = torch.arange(longest)
    mask = places < torch.tensor(lengths)[:, None]
    phrase = places // 2
    same = (phrase[:, None] == phrase).expand(len(lengths), -1, -1)
    return TextFeatures(
        embedded=torch.randn(len(lengths), longest, dims),
        token_mask=mask,
        position_ids=(places % 2).expand(len(lengths), -1),
        attention_mask=(same & mask[:, None] & mask[..., None])
        | torch.eye(longest, dtype=torch.bool),
    )


@pytest.fixture
def pyramid_of() -> Callable[..., FeaturePyramid]:
    return make_pyramid


@pytest.fixture
def text_of() -> Callable[..., TextFeatures]:
    return make_text
