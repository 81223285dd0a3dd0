"""Flattened pyramids: sizes, masks, positions, proposals."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.models.transformer.positions import SinePositionalEncoding
from llmdet.models.transformer.proposals import pixel_proposals
from llmdet.models.transformer.pyramid import build_pyramid, pixel_centres, valid_level_sizes

DIMS = 8


def pyramid_of(shapes, valid, batch=1):
    feats = [torch.randn(batch, DIMS, *shape) for shape in shapes]
    encoding = SinePositionalEncoding(DIMS // 2, temperature=20, normalize=True)
    return feats, build_pyramid(feats, valid, torch.zeros(len(shapes), DIMS), encoding)


@settings(max_examples=50, deadline=None)
@given(
    image=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    beyond=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    stride=st.sampled_from([2, 4, 8]),
)
def test_valid_sizes_are_those_of_a_nearest_neighbour_mask(image, beyond, stride):
    padded = (image[0] + beyond[0], image[1] + beyond[1])
    shape = (-(-padded[0] // stride), -(-padded[1] // stride))
    mask = torch.zeros(1, 1, *padded, dtype=torch.float64)
    mask[..., : image[0], : image[1]] = 1
    small = F.interpolate(mask, size=shape)[0, 0]
    ((height, width),) = valid_level_sizes([image], padded, [shape])[0]
    assert (height, width) == (int(small[:, 0].sum()), int(small[0].sum()))


def test_levels_follow_each_other_row_by_row():
    feats, pyramid = pyramid_of([(2, 3), (1, 2)], [[(2, 3)], [(1, 2)]])
    assert torch.equal(pyramid.feat[0, 4], feats[0][0, :, 1, 1])
    assert torch.equal(pyramid.feat[0, 6], feats[1][0, :, 0, 0])
    assert pyramid.level_start_index.tolist() == [0, 6]
    assert pyramid.padding_mask is None


def test_padding_is_masked_and_positions_count_valid_pixels_only():
    _, padded = pyramid_of([(4, 6)], [[(3, 4)]])
    _, alone = pyramid_of([(3, 4)], [[(3, 4)]])
    inside = ~padded.padding_mask[0]
    assert inside.view(4, 6).nonzero().amax(0).tolist() == [2, 3]
    torch.testing.assert_close(padded.pos[0, inside], alone.pos[0])
    torch.testing.assert_close(pixel_centres(padded)[0, inside], pixel_centres(alone)[0])


def test_proposals_outside_the_image_or_on_padding_are_infinite():
    _, pyramid = pyramid_of([(8, 8), (4, 4)], [[(8, 6)], [(4, 3)]])
    boxes, usable = pixel_proposals(pyramid)
    assert torch.isinf(boxes[~usable]).all()
    assert not usable[0, :64].view(8, 8)[:, 6:].any()
    finest, coarser = boxes.sigmoid()[0, 0], boxes.sigmoid()[0, 64 + 5]
    torch.testing.assert_close(finest, torch.tensor([0.5 / 6, 0.5 / 8, 0.05, 0.05]))
    torch.testing.assert_close(coarser, torch.tensor([1.5 / 3, 1.5 / 4, 0.1, 0.1]))
