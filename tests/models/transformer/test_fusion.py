"""Fusion of image and text against a formula and against transformers."""

import math

import pytest
import torch
from transformers import MMGroundingDinoConfig
from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import (
    MMGroundingDinoFusionLayer,
)

from llmdet.errors import ConfigError
from llmdet.models.transformer.fusion import BiMultiHeadAttention, FusionLayer

B, PIXELS, TOKENS, C, INNER, HEADS = 2, 7, 4, 8, 12, 2
NAMES = {"v_proj": "vision_proj", "l_proj": "text_proj"}
NAMES |= {f"values_{a}": f"values_{b}" for a, b in list(NAMES.items())}
NAMES |= {f"out_{a}": f"out_{b}" for a, b in list(NAMES.items()) if "values" not in a}
NORMS = {"layer_norm_v": "layer_norm_vision", "layer_norm_l": "layer_norm_text"}
NORMS |= {"gamma_v": "vision_param", "gamma_l": "text_param"}


def layer():
    made = FusionLayer(C, C, INNER, HEADS, dropout=0.0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def features():
    return torch.randn(B, PIXELS, C).double(), torch.randn(B, TOKENS, C).double()


def read(query, key, value, blocked):
    """What each query reads, head by head; ``blocked`` [B, keys] is True where nothing is."""
    width = INNER // HEADS
    parts = []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)
        scores = scores.masked_fill(blocked[:, None], float("-inf"))
        parts.append(scores.softmax(-1) @ value[..., part])
    return torch.cat(parts, -1)


@pytest.mark.parametrize("gradients", [True, False])
def test_image_and_text_read_each_other_through_the_same_products(gradients):
    attention = layer().attn
    visual, language = features()
    no_pixel, no_token = torch.rand(B, PIXELS) > 0.7, torch.rand(B, TOKENS) > 0.7
    no_pixel[:, 0] = no_token[:, 0] = False
    query, key = attention.v_proj(visual), attention.l_proj(language)
    from_text = read(query, key, attention.values_l_proj(language), no_token)
    from_image = read(key, query, attention.values_v_proj(visual), no_pixel)
    with torch.set_grad_enabled(gradients):
        found = attention(visual, language, no_pixel, no_token)
    torch.testing.assert_close(found[0], attention.out_v_proj(from_text))
    torch.testing.assert_close(found[1], attention.out_l_proj(from_image))


@pytest.mark.parametrize("padded", [False, True])
def test_what_is_folded_is_the_formula_in_float32(padded):
    attention = BiMultiHeadAttention(64, 64, 256, 4, dropout=0.0)
    inputs = [torch.randn(2, 150, 64), torch.randn(2, 30, 64)]
    no_pixel = (torch.arange(150) > 100).expand(2, -1) if padded else None
    no_token = (torch.arange(30) > torch.tensor([[20], [29]])) if padded else None
    trained = [value.requires_grad_() for value in inputs] + list(attention.parameters())

    def outputs_and_gradients(attend):
        found = attend(*inputs, no_pixel, no_token)
        return *found, *torch.autograd.grad(sum(out.square().sum() for out in found), trained)

    expected = outputs_and_gradients(attention._attend_both)
    found = outputs_and_gradients(attention._attend_folded)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_folded_drops_as_many_probabilities():
    attention = BiMultiHeadAttention(8, 8, 16, 2, dropout=0.25)
    inputs = torch.randn(1, 5, 8), torch.randn(1, 4, 8), None, None
    for attend in (attention._attend_folded, attention._attend_both):
        whole = attend(*inputs)
        many = [attend(*inputs) for _ in range(4000)]
        expected = attention.eval()._attend_both(*inputs)
        attention.train()
        for number, wanted in enumerate(expected):
            mean = torch.stack([out[number] for out in many]).mean(0)
            torch.testing.assert_close(mean, wanted, rtol=0.05, atol=0.05)
        assert not torch.equal(whole[0], many[0][0])


def test_products_beyond_float16_stay_finite():
    attention = BiMultiHeadAttention(8, 8, 16, 2, dropout=0.0).half()
    visual, language = torch.full((1, 5, 8), 200.0).half(), torch.full((1, 4, 8), 200.0).half()
    for linear in (attention.v_proj, attention.l_proj):
        torch.nn.init.constant_(linear.weight, 0.1)
    for found in attention._attend_folded(visual, language, None, None):
        assert torch.isfinite(found).all()


@pytest.mark.parametrize(("tokens", "folded"), [(4, True), (256, True), (400, False)])
def test_folding_is_chosen_where_it_saves_products(tokens, folded, monkeypatch):
    attention = BiMultiHeadAttention(8, 8, 1024, 4)
    monkeypatch.setattr(attention, "_attend_folded", lambda *_: True)
    monkeypatch.setattr(attention, "_attend_both", lambda *_: False)
    assert attention(torch.randn(1, 5, 8), torch.randn(1, tokens, 8), None, None) is folded


def test_a_layer_is_that_of_transformers():
    ours = layer()
    config = MMGroundingDinoConfig(
        d_model=C,
        encoder_ffn_dim=2 * INNER,
        encoder_attention_heads=2 * HEADS,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
    )
    theirs = MMGroundingDinoFusionLayer(config).double().eval()
    weights = {}
    for name, value in ours.state_dict().items():
        parts = [NORMS.get(part, NAMES.get(part, part)) for part in name.split(".")]
        weights[".".join(parts)] = value
    theirs.load_state_dict(weights)
    visual, language = features()
    (expected_visual, _), (expected_language, _) = theirs(visual, language)
    found_visual, found_language = ours(visual, language, None, None)
    torch.testing.assert_close(found_visual, expected_visual)
    torch.testing.assert_close(found_language, expected_language)


def test_padding_changes_nothing_that_is_no_padding():
    model, (visual, language) = layer(), features()
    no_pixel = torch.zeros(B, PIXELS, dtype=torch.bool)
    no_token = torch.zeros(B, TOKENS, dtype=torch.bool)
    no_pixel[0, 5:] = no_token[1, 2:] = True
    before = model(visual, language, no_pixel, no_token)
    visual[no_pixel] += 10
    language[no_token] -= 10
    after = model(visual, language, no_pixel, no_token)
    torch.testing.assert_close(after[0][~no_pixel], before[0][~no_pixel])
    torch.testing.assert_close(after[1][~no_token], before[1][~no_token])
    assert not torch.allclose(
        model(visual, language, None, None)[0][~no_pixel], before[0][~no_pixel]
    )


def test_the_order_of_tokens_does_not_matter_to_the_image():
    model, (visual, language) = layer(), features()
    order = torch.tensor([2, 0, 3, 1])
    before = model(visual, language, None, None)
    after = model(visual, language[:, order], None, None)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1], before[1][:, order])


def test_without_layer_scale_only_the_norm_of_the_input_is_carried_on():
    model, (visual, language) = layer(), features()
    torch.nn.init.zeros_(model.gamma_v)
    torch.nn.init.zeros_(model.gamma_l)
    found = model(visual, language, None, None)
    assert torch.equal(found[0], model.layer_norm_v(visual))
    assert torch.equal(found[1], model.layer_norm_l(language))


def test_gradients_are_those_of_finite_differences():
    model, (visual, language) = layer(), features()
    no_token = torch.tensor([[False] * TOKENS, [False, False, True, True]])
    inputs = [tensor.requires_grad_() for tensor in (visual, language)]
    assert torch.autograd.gradcheck(
        lambda v, t: model(v, t, None, no_token), inputs, fast_mode=True
    )


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="embed_dim=10 is no multiple of 4 heads"):
        BiMultiHeadAttention(8, 8, 10, 4)
