"""Matching and losses against mmdet's, on random predictions."""

import pytest
import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.structures import InstanceData

from llmdet.errors import ConfigError
from llmdet.models.heads.losses import GroundingLoss
from llmdet.models.heads.matching import HungarianMatcher, Targets
from llmdet.models.structures import Matches
from llmdet.models.transformer.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

COSTS = [
    {"type": "BinaryFocalLossCost", "weight": 2.0},
    {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xywh"},
    {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
]
SIZE = (60, 80)
Q, TOKENS = 12, 7


def target(count):
    first = torch.rand(count, 2) * 0.5
    corners = torch.cat([first, first + 0.1 + torch.rand(count, 2) * 0.4], -1)
    positive = (torch.rand(count, TOKENS) > 0.5).float()
    return Targets(xyxy_to_cxcywh(corners), corners, positive, SIZE)


def predictions(images, layers=1):
    boxes = torch.rand(layers, images, Q, 4) * 0.4 + 0.2
    return torch.randn(layers, images, Q, TOKENS) * 3, boxes


def test_matches_are_those_of_mmdets_assigner():
    import mmdet.models  # noqa: F401
    from mmengine.registry import DefaultScope

    logits, boxes = predictions(2, layers=3)
    targets = [target(4), target(2)]
    matcher = HungarianMatcher.from_config(
        {"assigner": {"type": "HungarianAssigner", "match_costs": COSTS}}
    )
    matches = matcher(list(logits), list(boxes), targets)
    with DefaultScope.overwrite_default_scope("mmdet"):
        assigner = HungarianAssigner(COSTS)
    pixels = torch.tensor([80.0, 60, 80, 60])
    for layer, found in enumerate(matches):
        for image, truth in enumerate(targets):
            result = assigner.assign(
                InstanceData(
                    scores=logits[layer, image],
                    bboxes=cxcywh_to_xyxy(boxes[layer, image]) * pixels,
                ),
                InstanceData(
                    labels=torch.zeros(len(truth.boxes), dtype=torch.long),
                    bboxes=truth.corners * pixels,
                    positive_maps=truth.positive_map,
                    text_token_mask=torch.ones(len(truth.boxes), TOKENS, dtype=torch.bool),
                ),
                {"img_shape": SIZE},
            )
            assigned = torch.zeros(Q, dtype=torch.long)
            assigned[found.query_indices[image]] = found.box_indices[image] + 1
            assert torch.equal(assigned, result.gt_inds)


def test_padded_text_and_images_without_boxes_change_no_other_match():
    logits, boxes = predictions(2)
    targets = [target(3), target(0)]
    matcher = HungarianMatcher()
    (alone,) = matcher([logits[0, :1]], [boxes[0, :1]], targets[:1])
    longer = torch.cat([logits[0], torch.full((2, Q, 3), float("-inf"))], -1)
    padded = [
        Targets(
            t.boxes, t.corners, torch.cat([t.positive_map, torch.zeros(len(t.boxes), 3)], 1), SIZE
        )
        for t in targets
    ]
    (together,) = matcher([longer], [boxes[0]], padded)
    assert torch.equal(together.query_indices[0], alone.query_indices[0])
    assert len(together.query_indices[1]) == 0


def test_a_prediction_that_is_not_finite_does_not_stop_matching():
    logits, boxes = predictions(1)
    boxes[0, 0, 3] = float("nan")
    (matches,) = HungarianMatcher()([logits[0]], [boxes[0]], [target(4)])
    assert 3 not in matches.query_indices[0].tolist()


@pytest.mark.parametrize(
    "assigner",
    [
        {"type": "TaskAlignedAssigner"},
        {"match_costs": [{"type": "BBoxL1Cost", "box_format": "xyxy"}]},
        {"match_costs": [{"type": "DiceCost"}]},
    ],
)
def test_an_assigner_that_grounding_does_not_define_is_refused(assigner):
    with pytest.raises(ConfigError, match=r"train_cfg\.assigner|box_format='xyxy'"):
        HungarianMatcher.from_config({"assigner": {"match_costs": [], **assigner}})


@pytest.mark.parametrize(
    ("train_cfg", "sentence"),
    [
        ({"asigner": {}}, r"train_cfg has the unknown key 'asigner'; did you mean 'assigner'"),
        ({"assigner": {"match_cost": COSTS}}, r"assigner has .*'match_cost'.*'match_costs'"),
        ({"assigner": {"type": "HungarianAssigner"}}, "assigner lacks match_costs"),
        ({"assigner": {"match_costs": []}}, r"weigh \(0.0, 0.0, 0.0\)"),
        ({"assigner": {"match_costs": [{**c, "weight": 0} for c in COSTS]}}, "one of them above"),
        ({"assigner": {"match_costs": [{**COSTS[1], "weight": -5}]}}, "at least zero"),
        ({"assigner": {"match_costs": {"type": "IouCost"}}}, "did you mean 'IoUCost'"),
        ({"assigner": {"match_costs": {"type": "IoUCost", "weigth": 2}}}, "did you mean 'weight'"),
    ],
)
def test_a_wrong_key_and_costs_that_are_all_zero_are_refused(train_cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        HungarianMatcher.from_config(train_cfg)


def test_perfect_predictions_cost_almost_nothing_and_padding_costs_nothing():
    truth = target(2)
    queries, order = torch.tensor([4, 1]), torch.tensor([0, 1])
    logits = torch.full((1, Q, TOKENS + 2), -30.0)
    logits[0, queries, :TOKENS] = (truth.positive_map * 60 - 30)[order]
    logits[..., TOKENS:] = float("-inf")
    boxes = torch.rand(1, Q, 4)
    boxes[0, queries] = truth.boxes[order]
    padded = torch.cat([truth.positive_map, torch.zeros(2, 2)], 1)
    losses = GroundingLoss().of_layer(
        logits,
        boxes,
        [Targets(truth.boxes, truth.corners, padded, SIZE)],
        Matches((queries,), (order,)),
        torch.tensor(2.0),
        "",
    )
    assert all(float(loss) < 1e-5 for loss in losses.values())


def test_losses_are_per_matched_box_whatever_the_batch_size():
    truth = target(3)
    logits, boxes = predictions(1)
    index = torch.arange(3)
    loss = GroundingLoss()
    once = loss.of_layer(
        logits[0], boxes[0], [truth], Matches((index,), (index,)), torch.tensor(3.0), ""
    )
    twice = loss.of_layer(
        logits[0].repeat(2, 1, 1),
        boxes[0].repeat(2, 1, 1),
        [truth] * 2,
        Matches((index,) * 2, (index,) * 2),
        torch.tensor(6.0),
        "",
    )
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value)
