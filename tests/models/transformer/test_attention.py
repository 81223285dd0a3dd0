"""Dense and deformable attention against a formula and against transformers."""

import math

import pytest
import torch
from transformers import MMGroundingDinoConfig
from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import (
    MMGroundingDinoMultiscaleDeformableAttention,
)

from llmdet.errors import ConfigError
from llmdet.models.transformer.attention import MultiheadAttention, MultiScaleDeformableAttention

B, Q, K, C, HEADS, POINTS = 2, 5, 4, 16, 2, 3
SHAPES = ((6, 8), (3, 4))
S = sum(height * width for height, width in SHAPES)


def random_weights(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.double().eval()


def dense_by_definition(layer, query, key, value, blocked):
    """One query of one head after the other; ``blocked`` is [B, Q, K]."""
    weight, bias = layer.attn.in_proj_weight, layer.attn.in_proj_bias
    q, k, v = (
        x @ w.T + b
        for x, w, b in zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
    )
    width = C // HEADS
    heads = torch.zeros(len(query), query.shape[1], C, dtype=query.dtype)
    for image, place, head in torch.cartesian_prod(
        *map(torch.arange, (len(query), query.shape[1], HEADS))
    ).tolist():
        part = slice(head * width, (head + 1) * width)
        seen = (~blocked[image, place]).nonzero().flatten()
        scores = k[image, seen, part] @ q[image, place, part] / math.sqrt(width)
        heads[image, place, part] = scores.softmax(0) @ v[image, seen, part]
    return heads @ layer.attn.out_proj.weight.T + layer.attn.out_proj.bias


def test_positions_reach_queries_and_keys_but_no_values():
    layer = random_weights(MultiheadAttention(C, HEADS))
    query, key = torch.randn(B, Q, C).double(), torch.randn(B, K, C).double()
    query_pos, key_pos = torch.randn(B, Q, C).double(), torch.randn(B, K, C).double()
    blocked = torch.tensor([[False, False, True, False], [False, True, True, False]])
    found = layer(query, key, query_pos=query_pos, key_pos=key_pos, key_padding_mask=blocked)
    every = blocked[:, None].expand(-1, Q, -1)
    expected = dense_by_definition(layer, query + query_pos, key + key_pos, key, every)
    torch.testing.assert_close(found, query + expected)


def test_a_query_sees_what_its_row_of_the_mask_allows():
    layer = random_weights(MultiheadAttention(C, HEADS))
    query = torch.randn(B, Q, C).double()
    blocked = (torch.rand(B, Q, Q) > 0.5) & ~torch.eye(Q, dtype=torch.bool)  # each sees itself
    found = layer(query, attn_mask=blocked.repeat_interleave(HEADS, 0))
    expected = dense_by_definition(layer, query, query, query, blocked)
    torch.testing.assert_close(found, query + expected)


def deformable():
    return random_weights(MultiScaleDeformableAttention(C, HEADS, len(SHAPES), POINTS, dropout=0.0))


def of_transformers(layer):
    """transformers' attention with the same weights, whose names are the same."""
    config = MMGroundingDinoConfig(d_model=C, num_feature_levels=len(SHAPES))
    theirs = MMGroundingDinoMultiscaleDeformableAttention(config, HEADS, POINTS).double().eval()
    theirs.load_state_dict(layer.state_dict())
    return theirs


@pytest.mark.parametrize("numbers", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_deformable_attention_is_that_of_transformers(pyramid_of, numbers, padded):
    layer = deformable()
    valid = [[(6, 8), (4, 5)], [(3, 4), (2, 3)]] if padded else None
    pyramid = pyramid_of(SHAPES, valid=valid, dtype=torch.float64)
    query, position, value = (torch.randn(B, n, C).double() for n in (Q, Q, S))
    references = torch.rand(B, Q, len(SHAPES), numbers).double() * 0.6 + 0.2
    ours = layer.attend(query, position, value, references, pyramid)
    mask = pyramid.padding_mask
    theirs, _ = of_transformers(layer)(
        query,
        attention_mask=None if mask is None else ~mask,
        encoder_hidden_states=value,
        position_embeddings=position,
        reference_points=references,
        spatial_shapes=pyramid.spatial_shapes,
        spatial_shapes_list=list(SHAPES),
        level_start_index=pyramid.level_start_index,
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(layer(query, position, value, references, pyramid), query + ours)


def test_pixels_of_padding_are_never_read(pyramid_of):
    layer = deformable()
    pyramid = pyramid_of(SHAPES, valid=[[(6, 8), (4, 5)], [(3, 4), (2, 3)]], dtype=torch.float64)
    query, value = torch.randn(B, Q, C).double(), torch.randn(B, S, C).double()
    references = torch.rand(B, Q, len(SHAPES), 2).double()
    before = layer.attend(query, None, value, references, pyramid)
    value[pyramid.padding_mask] += 100
    torch.testing.assert_close(layer.attend(query, None, value, references, pyramid), before)


def test_a_new_head_looks_along_its_own_direction_point_by_point_farther():
    layer = MultiScaleDeformableAttention(C, num_heads=4, num_levels=2, num_points=3)
    offsets = layer.sampling_offsets.bias.view(4, 2, 3, 2)
    right, down, left, up = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for head, direction in enumerate((right, down, left, up)):
        for point in range(3):
            expected = (direction * (point + 1)).expand(2, 2)
            torch.testing.assert_close(offsets[head, :, point], expected, atol=1e-6, rtol=0)


def test_gradients_are_those_of_finite_differences(pyramid_of):
    layer = deformable()
    pyramid = pyramid_of(SHAPES, batch=1, dtype=torch.float64)
    query, value = torch.randn(1, 2, C).double(), torch.randn(1, S, C).double()
    references = torch.rand(1, 2, len(SHAPES), 4).double() * 0.6 + 0.2
    inputs = [tensor.requires_grad_() for tensor in (query, value, references)]
    assert torch.autograd.gradcheck(
        lambda q, v, r: layer.attend(q, None, v, r, pyramid), inputs, fast_mode=True
    )


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="embed_dims=10 is no multiple of num_heads=4"):
        MultiScaleDeformableAttention(10, 4)
