"""The decoder: how boxes are refined, and which query depends on what."""

import dataclasses

import pytest
import torch
from torch import nn

from llmdet.errors import ConfigError
from llmdet.models.structures import EncoderOutput
from llmdet.models.transformer.decoder import REFINEMENT_EPS, GroundingDINODecoder, refine
from llmdet.models.transformer.positions import encode_coordinates

B, Q, C, HEADS, LAYERS = 2, 5, 16, 2, 3
VALID = [[(6, 8), (4, 6)], [(3, 4), (2, 3)]]


def decoder(**changes):
    attention = {"embed_dims": C, "num_heads": HEADS}
    made = GroundingDINODecoder(
        num_layers=LAYERS,
        layer_cfg={
            "self_attn_cfg": attention,
            "cross_attn_text_cfg": attention,
            "cross_attn_cfg": {**attention, "num_levels": 2, "num_points": 2, "dropout": 0.0},
            "ffn_cfg": {"embed_dims": C, "feedforward_channels": 32},
        },
        **changes,
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def branches():
    return nn.ModuleList(nn.Linear(C, 4) for _ in range(LAYERS + 1))


@pytest.fixture
def encoded(pyramid_of, text_of):
    pyramid = pyramid_of(valid=VALID)
    return EncoderOutput(torch.randn_like(pyramid.feat), text_of((5, 3)), pyramid)


def queries():
    return torch.randn(B, Q, C), torch.rand(B, Q, 4) * 0.6 + 0.2


def test_each_layer_starts_from_the_box_that_the_last_one_moved(encoded):
    model, boxes, (query, references) = decoder(), branches(), queries()
    found = model(query, references, encoded, boxes)
    ratios = encoded.pyramid.valid_ratios.repeat(1, 1, 2)[:, None]  # [B, 1, levels, 4]
    torch.testing.assert_close(found.references[0], references)
    for index, layer in enumerate(model.layers):
        position = model.ref_point_head(encode_coordinates(references, C // 2))
        on_maps = torch.stack([references * ratios[:, :, level] for level in (0, 1)], 2)
        query = layer(query, position, on_maps, encoded, None)
        moved = torch.logit(references.clamp(1e-3, 1 - 1e-3)) + boxes[index](query)
        references = moved.sigmoid()
        torch.testing.assert_close(found.hidden_states[index], model.norm(query))
        torch.testing.assert_close(found.references[index + 1], references)


def test_a_layer_reads_queries_then_text_then_the_image(encoded):
    layer, (query, references) = decoder().layers[0], queries()
    position, on_maps = torch.randn(B, Q, C), references[:, :, None].expand(-1, -1, 2, -1)
    text = encoded.text
    x = layer.norms[0](layer.self_attn(query, query_pos=position, key_pos=position))
    x = layer.norms[1](
        layer.cross_attn_text(
            x, text.embedded, query_pos=position, key_padding_mask=~text.token_mask
        )
    )
    x = layer.norms[2](layer.cross_attn(x, position, encoded.memory, on_maps, encoded.pyramid))
    expected = layer.norms[3](layer.ffn(x))
    torch.testing.assert_close(layer(query, position, on_maps, encoded, None), expected)


def test_padded_text_and_pixels_reach_no_query(encoded):
    model, boxes, (query, references) = decoder(), branches(), queries()
    before = model(query, references, encoded, boxes)
    memory, words = encoded.memory.clone(), encoded.text.embedded.clone()
    memory[encoded.pyramid.padding_mask] += 50
    words[~encoded.text.token_mask] -= 50
    text = dataclasses.replace(encoded.text, embedded=words)
    after = model(query, references, EncoderOutput(memory, text, encoded.pyramid), boxes)
    torch.testing.assert_close(after.hidden_states, before.hidden_states)
    torch.testing.assert_close(after.references, before.references)


def test_the_order_of_queries_does_not_matter(encoded):
    model, boxes, (query, references) = decoder(), branches(), queries()
    order = torch.tensor([3, 1, 4, 0, 2])
    before = model(query, references, encoded, boxes)
    after = model(query[:, order], references[:, order], encoded, boxes)
    torch.testing.assert_close(after.hidden_states, before.hidden_states[:, :, order])
    torch.testing.assert_close(after.references, before.references[:, :, order])


def test_a_blocked_query_is_not_seen(encoded):
    model, boxes, (query, references) = decoder(), branches(), queries()
    blocked = torch.zeros(Q, Q, dtype=torch.bool)
    blocked[2:, :2] = True  # the last three do not see the first two
    before = model(query, references, encoded, boxes, blocked)
    changed = query.clone()
    changed[:, :2] += 1
    after = model(changed, references, encoded, boxes, blocked)
    torch.testing.assert_close(after.hidden_states[:, :, 2:], before.hidden_states[:, :, 2:])
    assert not torch.allclose(after.hidden_states[:, :, :2], before.hidden_states[:, :, :2])
    unblocked = model(changed, references, encoded, boxes)
    assert not torch.allclose(unblocked.hidden_states[:, :, 2:], before.hidden_states[:, :, 2:])


def test_a_box_that_a_layer_moved_carries_its_gradient_to_the_head_but_not_to_the_next_layer(
    encoded,
):
    model, boxes, (query, references) = decoder(), branches(), queries()
    found = model(query, references, encoded, boxes)
    found.references[2].sum().backward()  # what the second layer made of the first one's box
    assert boxes[1].weight.grad.abs().sum() > 0
    assert boxes[0].weight.grad is None or not boxes[0].weight.grad.any()


def test_recomputed_layers_give_the_same_gradients(encoded):
    gradients = []
    for number in (-1, LAYERS):
        torch.manual_seed(0)
        model, boxes, (query, references) = decoder(num_cp=number), branches(), queries()
        model(query, references, encoded, boxes).hidden_states.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda m, n=name: n + m)


def test_boxes_move_in_the_space_of_logits():
    box = torch.tensor([0.5, 0.2, 0.9, 1.0])
    moved = refine(torch.tensor([0.0, 1.0, -1.0, 0.0]), box, REFINEMENT_EPS)
    expected = torch.tensor([0.5, 0.4046, 0.7680, 1 - REFINEMENT_EPS])
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)
    assert torch.isfinite(refine(torch.zeros(2), torch.tensor([0.0, 1.0]))).all()


@pytest.mark.parametrize("changes", [{"return_intermediate": False}, {"post_norm_cfg": {}}])
def test_other_decoders_are_refused(changes):
    with pytest.raises(ConfigError, match="return_intermediate must be True"):
        decoder(**changes)
