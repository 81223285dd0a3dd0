"""Contrastive denoising queries."""

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.models.transformer.denoising import DenoisingQueryGenerator, denoising_targets
from llmdet.testing.processes import run_processes

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
        query, box = denoising_targets(dn, image)
        found = cxcywh_to_xyxy(dn.boxes_unact[image, query].sigmoid())
        torch.testing.assert_close(found, boxes[box], atol=1e-3, rtol=0)
        expected = make.label_embedding(LABELS[image][box])
        assert torch.equal(dn.content[image, query], expected)


def test_negative_corners_are_moved_farther_than_positive_ones():
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6]]).repeat(200, 1)
    noisy = cxcywh_to_xyxy(generator().noise_boxes(boxes, 1, torch.Generator()).sigmoid()) - 0.5
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


@pytest.mark.parametrize(
    ("group_cfg", "sentence"),
    [
        ({"dynamic": True}, "num_dn_queries >= 1"),
        ({"dynamic": False, "num_groups": 0}, "num_groups >= 1"),
        ({"num_dn_queries": 5, "max_boxes": 0}, "max_boxes=0; give a whole number from 1"),
        ({"num_dn_querys": 5}, "group_cfg has the unknown key 'num_dn_querys'.*num_dn_queries"),
    ],
)
def test_a_group_setting_without_a_number_or_with_a_wrong_key_is_refused(group_cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        generator(group_cfg=group_cfg)


CROWD = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.1
CROWD = torch.cat([CROWD, CROWD + 0.2], 1)


def test_of_a_crowd_as_many_boxes_are_noised_as_queries_could_find_others_each_time():
    make = generator(label_noise_scale=0.0, box_noise_scale=0.0)
    labels = torch.arange(40) % 16
    seen = set()
    for _ in range(2):
        dn = make([CROWD, BOXES[0]], [labels, LABELS[0]])
        assert dn.content.shape == (2, 2 * 2 * 5, 8)  # 2 groups share 12 queries
        query, box = denoising_targets(dn, 0)
        assert torch.equal(box[:5], box[:5].unique())  # drawn without repetition, in order
        found = cxcywh_to_xyxy(dn.boxes_unact[0, query].sigmoid())
        torch.testing.assert_close(found, CROWD[box], atol=1e-3, rtol=0)
        assert torch.equal(dn.content[0, query], make.label_embedding(labels[box]))
        assert denoising_targets(dn, 1)[1].tolist() == [0, 1, 0, 1]
        seen.add(tuple(box.tolist()))
    assert len(seen) == 2


def test_the_limit_of_boxes_is_a_setting_and_changes_nothing_below_it():
    group = {"dynamic": True, "num_dn_queries": 12}
    torch.manual_seed(3)
    free = generator(group_cfg=group, num_matching_queries=2)
    torch.manual_seed(3)
    bound = generator(group_cfg={**group, "max_boxes": 40}, num_matching_queries=2)
    assert bound([CROWD], [torch.zeros(40, dtype=torch.long)]).content.shape == (1, 80, 8)
    noise = []
    for make in (free, bound):
        torch.manual_seed(4)
        noise.append(make(BOXES, LABELS).boxes_unact)
    assert torch.equal(*noise)


def test_a_fixed_number_of_groups_does_not_depend_on_the_boxes():
    make = generator(group_cfg={"dynamic": False, "num_groups": 3})
    assert make(BOXES, LABELS).num_groups == make(BOXES[1:], LABELS[1:]).num_groups == 3


def noise_of_a_process():
    """Seed as a runner does, build, and make the noise of two steps."""
    torch.manual_seed(7)
    make = generator()
    steps = [make(BOXES, LABELS) for _ in range(2)]
    return make.label_embedding.weight, [(step.boxes_unact, step.content) for step in steps]


def test_processes_start_from_equal_weights_and_draw_noise_of_their_own(tmp_path):
    first, second = run_processes(2, noise_of_a_process, folder=tmp_path)
    alone = noise_of_a_process()
    assert torch.equal(first[0], second[0])
    for step in (0, 1):
        assert (first[1][step][0] - second[1][step][0]).abs().max() > 0.1
    assert not torch.equal(first[1][0][0], first[1][1][0])
    # The same seed gives the same noise again, and the main process that of a run without others.
    for given, again in zip(first[1], alone[1], strict=True):
        assert torch.equal(given[0], again[0])
        assert torch.equal(given[1], again[1])


def test_labels_beyond_the_embedding_wrap_around():
    make = generator(label_noise_scale=0.0)
    assert (
        make.noise_labels(torch.tensor([3, 16, 300]), 1, torch.Generator()).tolist()
        == [3, 0, 12] * 2
    )
