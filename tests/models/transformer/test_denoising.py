"""Contrastive denoising queries."""

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.models.transformer.denoising import DenoisingQueryGenerator, denoising_targets

BOXES = [
    torch.tensor([[0.3, 0.3, 0.5, 0.6], [0.4, 0.5, 0.8, 0.8]]),
    torch.tensor([[0.2, 0.2, 0.6, 0.5]]),
]
LABELS = [torch.tensor([3, 7]), torch.tensor([1])]


def generator(**changes):
    settings = {"num_classes": 16, "embed_dims": 8, "num_matching_queries": 5}
    group = {"dynamic": True, "num_dn_queries": 12}
    return DenoisingQueryGenerator(**{**settings, "group_cfg": group, **changes})


def test_groups_share_the_budget_of_the_fullest_image():
    dn = generator()(BOXES, LABELS)
    assert (dn.num_groups, dn.queries_per_group) == (6, 4)
    assert dn.content.shape == (2, 24, 8)


def test_without_noise_positive_queries_are_the_boxes_themselves():
    make = generator(label_noise_scale=0.0, box_noise_scale=0.0)
    dn = make(BOXES, LABELS)
    for image, boxes in enumerate(BOXES):
        query, box = denoising_targets(len(boxes), dn, boxes.device)
        found = cxcywh_to_xyxy(dn.boxes_unact[image, query].sigmoid())
        torch.testing.assert_close(found, boxes[box], atol=1e-3, rtol=0)
        expected = make.label_embedding(LABELS[image][box])
        assert torch.equal(dn.content[image, query], expected)


def test_negative_corners_are_moved_farther_than_positive_ones():
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6]]).repeat(200, 1)
    noisy = cxcywh_to_xyxy(generator().noise_boxes(boxes, 1).sigmoid()) - 0.5
    shift = (noisy.abs() - 0.1).abs() / 0.2
    assert shift[:200].max() <= 0.5 + 1e-3
    # Not every corner: where two have crossed, the box has no size any more.
    assert shift[200:].mean() > shift[:200].mean() + 0.1


def test_matching_queries_see_no_truth_and_groups_do_not_see_each_other():
    mask = generator()(BOXES, LABELS).attention_mask
    assert mask[24:, :24].all()
    assert not mask[:, 24:].any()
    first, second = slice(0, 4), slice(4, 8)
    assert not mask[first, first].any()
    assert mask[first, second].all()
    assert mask[second, first].all()


def test_a_batch_without_boxes_has_no_denoising_queries():
    empty = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2
    dn = generator()(*empty)
    assert dn.content.shape == (2, 0, 8)
    assert dn.attention_mask.shape == (5, 5)


def test_a_group_setting_without_a_number_is_refused():
    with pytest.raises(ConfigError, match="num_dn_queries"):
        generator(group_cfg={"dynamic": True})


def test_labels_beyond_the_embedding_wrap_around():
    make = generator(label_noise_scale=0.0)
    assert make.noise_labels(torch.tensor([3, 16, 300]), 1).tolist() == [3, 0, 12] * 2
