"""Scores, boxes and detections of the head, against loops."""

import math

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.heads.contrastive import PRIOR_BIAS, ContrastiveEmbed
from llmdet.models.heads.grounding_head import GroundingDINOHead
from llmdet.models.structures import DecoderOutput, TextFeatures

LAYERS, B, Q, C, TOKENS = 2, 2, 6, 8, 5
SIZE = (40, 50)  # height, width


def text(length=TOKENS):
    mask = torch.arange(TOKENS).expand(B, -1) < length
    return TextFeatures(torch.randn(B, TOKENS, C), mask, torch.zeros_like(mask).long(), mask)


def head(**settings):
    contrastive = {"log_scale": "auto", "bias": True}
    return GroundingDINOHead(contrastive, num_layers=LAYERS, embed_dims=C, **settings)


def test_a_logit_is_the_scaled_product_of_query_and_token_plus_a_bias():
    words, visual = text(), torch.randn(B, Q, C)
    found = ContrastiveEmbed(log_scale="auto", bias=True)(visual, words).detach()
    for image, query, token in torch.cartesian_prod(*map(torch.arange, (B, Q, TOKENS))).tolist():
        product = float(visual[image, query] @ words.embedded[image, token])
        expected = product / math.sqrt(C) + PRIOR_BIAS
        assert float(found[image, query, token]) == pytest.approx(expected, abs=1e-5)


def test_padded_tokens_are_impossible_and_a_learned_scale_is_an_exponent():
    found = ContrastiveEmbed(log_scale=0.5)(torch.ones(B, Q, C), text(3))
    assert torch.isinf(found[..., 3:]).all()
    plain = ContrastiveEmbed()(torch.ones(B, Q, C), words := text(4))
    scaled = ContrastiveEmbed(log_scale=0.5)(torch.ones(B, Q, C), words)
    torch.testing.assert_close(scaled[..., :4], plain[..., :4] * math.exp(0.5))


def test_a_scale_that_is_no_word_and_no_number_is_refused():
    with pytest.raises(ConfigError, match="log_scale='sqrt'; choose 'auto', 'none' or a number"):
        ContrastiveEmbed(log_scale="sqrt")


def test_a_new_head_leaves_boxes_where_they_are_and_finds_everything_unlikely():
    model = head()
    model.init_weights()
    decoded = DecoderOutput(
        torch.randn(LAYERS, B, Q, C) * 0.01, torch.rand(LAYERS + 1, B, Q, 4) * 0.8 + 0.1
    )
    found = model(decoded, text())
    torch.testing.assert_close(found.boxes, decoded.references[:LAYERS])
    assert found.logits.detach().sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)


def test_each_layer_has_a_classifier_and_a_box_map_of_its_own():
    model = head()
    for number, branch in enumerate(model.reg_branches):
        torch.nn.init.constant_(branch[-1].bias, number + 1.0)
        torch.nn.init.zeros_(branch[-1].weight)
    decoded = DecoderOutput(torch.randn(LAYERS, B, Q, C), torch.full((LAYERS + 1, B, Q, 4), 0.5))
    found = model(decoded, text())
    for layer in range(LAYERS):
        expected = torch.full((B, Q, 4), 1 / (1 + math.exp(-layer - 1.0)))
        torch.testing.assert_close(found.boxes[layer], expected)


def detections(logits, boxes, token_map, limit):
    """Best (score, query, class) by loops; a class scores the mean of its tokens."""
    scored = []
    for query in range(len(logits)):
        if token_map is None:
            scored.append((float(logits[query].sigmoid().max()), query, 0))
            continue
        for number, row in enumerate(token_map):
            tokens = row.nonzero().flatten().tolist()
            probabilities = [float(logits[query, token].sigmoid()) for token in tokens]
            scored.append((sum(probabilities) / max(len(tokens), 1), query, number))
    return sorted(scored, reverse=True)[:limit]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("limit", [4, 100])
def test_the_best_pairs_of_query_and_class_become_boxes_in_pixels(whole, limit):
    logits, boxes = torch.randn(Q, TOKENS) * 2, torch.rand(Q, 4) * 0.5 + 0.25
    token_map = None
    if not whole:
        token_map = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    maps = None if whole else token_map[None]
    counts = [1 if whole else 3]
    (found,) = head(max_per_img=limit).detect(logits[None], boxes[None], maps, counts, [SIZE])
    expected = detections(logits, boxes, token_map, limit)
    assert len(found) == len(expected)
    for row, (score, query, label) in enumerate(expected):
        assert float(found.scores[row]) == pytest.approx(score, abs=1e-6)
        assert (int(found.bbox_index[row]), int(found.labels[row])) == (query, label)
        x, y, w, h = boxes[query].tolist()
        corners = [(x - w / 2) * 50, (y - h / 2) * 40, (x + w / 2) * 50, (y + h / 2) * 40]
        inside = [min(max(v, 0), limit) for v, limit in zip(corners, [50, 40] * 2, strict=True)]
        assert found.bboxes[row].tolist() == pytest.approx(inside, abs=1e-4)


@pytest.mark.parametrize("limit", [4, 100])
def test_texts_with_fewer_classes_than_their_neighbours_find_what_they_find_alone(limit):
    logits, boxes = torch.randn(2, Q, TOKENS), torch.rand(2, Q, 4)
    logits[1] -= 20  # so unlikely that any score of the padded rows would win
    maps = torch.tensor([[[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]])
    sizes, counts = [SIZE, (30, 20)], [2, 1]
    found = head(max_per_img=limit).detect(logits, boxes, maps.bool(), counts, sizes)
    for row, (together, count) in enumerate(zip(found, counts, strict=True)):
        (alone,) = head(max_per_img=limit).detect(
            logits[row : row + 1],
            boxes[row : row + 1],
            maps[row : row + 1, :count].bool(),
            [count],
            [sizes[row]],
        )
        assert len(together) == min(limit, count * Q)
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value)


def test_a_class_without_tokens_scores_zero():
    token_map = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]]).bool()
    logits, boxes = torch.randn(1, Q, TOKENS), torch.rand(1, Q, 4)
    (found,) = head(max_per_img=100).detect(logits, boxes, token_map, [2], [SIZE])
    assert (found.scores[found.labels == 1] == 0).all()
    assert (found.scores[found.labels == 0] > 0).all()


def test_detections_are_float32_whatever_the_model_runs_in():
    logits, boxes = torch.randn(1, Q, TOKENS).bfloat16(), torch.rand(1, Q, 4)
    token_map = torch.eye(TOKENS, dtype=torch.bool)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = head().detect(logits, boxes, token_map, [TOKENS], [SIZE])
    assert found.scores.dtype == found.bboxes.dtype == torch.float32
