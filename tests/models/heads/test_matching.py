"""Matching against mmdet's and against all assignments, on random predictions."""

import itertools

import pytest
import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.structures import InstanceData

from llmdet.errors import ConfigError
from llmdet.models.heads.matching import HungarianMatcher, Targets
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


@pytest.mark.parametrize("counts", [(4, 2, 0), (0, 0, 0), (Q + 3, 1, Q), (1, 7, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_all_layers_and_images_at_once_match_as_each_by_itself(counts, ties):
    logits, boxes = predictions(3, layers=4)
    targets = [target(count) for count in counts]
    if ties:  # equal queries, and equal boxes with equal tokens
        logits[:, :, Q // 2 :], boxes[:, :, Q // 2 :] = (
            part[:, :, : Q // 2] for part in (logits, boxes)
        )
        for truth in targets:
            half = len(truth.boxes) // 2
            for part in (truth.boxes, truth.corners, truth.positive_map):
                part[half : 2 * half] = part[:half]
    matcher = HungarianMatcher()
    together = matcher(list(logits), list(boxes), targets)
    for layer, found in enumerate(together):
        for image, truth in enumerate(targets):
            single = logits[layer, image, None], boxes[layer, image, None]
            (alone,) = matcher([single[0]], [single[1]], [truth])
            if not ties:
                assert torch.equal(found.query_indices[image], alone.query_indices[0])
                assert torch.equal(found.box_indices[image], alone.box_indices[0])
            # Rounding decides between equals, whichever way costs are computed.
            cost = matcher.cost(single[0][:, None], single[1][:, None], [truth])[0, 0]
            ours = cost[found.query_indices[image], found.box_indices[image]].sum()
            theirs = cost[alone.query_indices[0], alone.box_indices[0]].sum()
            torch.testing.assert_close(ours, theirs)


def test_costs_and_matches_travel_once_whatever_the_layers_and_images(monkeypatch):
    logits, boxes = predictions(3, layers=4)
    travels = []
    to_host = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: travels.append(self) or to_host(self))
    HungarianMatcher()(list(logits), list(boxes), [target(count) for count in (4, 2, 1)])
    assert [tuple(costs.shape) for costs in travels] == [(3, 4, Q, 4)]


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


def test_matching_finds_the_cheapest_of_all_assignments():
    logits, boxes = predictions(1)
    truth = target(3)
    matcher = HungarianMatcher()
    cost = matcher.cost(logits, boxes, [truth])[0, 0]  # [Q, N]
    best = min(
        sum(float(cost[query, box]) for box, query in enumerate(chosen))
        for chosen in itertools.permutations(range(Q), 3)
    )
    (matches,) = matcher([logits[0]], [boxes[0]], [truth])
    found = cost[matches.query_indices[0], matches.box_indices[0]].sum()
    assert float(found) == pytest.approx(best, rel=1e-5)
    assert matches.box_indices[0].tolist() == [0, 1, 2]


def test_each_weight_counts_its_own_cost():
    logits, boxes = predictions(1)
    truth = target(2)
    parts = [
        HungarianMatcher(**{"classification": 0, "l1": 0, "giou": 0, name: 1}).cost(
            logits, boxes, [truth]
        )
        for name in ("classification", "l1", "giou")
    ]
    together = HungarianMatcher(classification=2, l1=5, giou=2).cost(logits, boxes, [truth])
    torch.testing.assert_close(together, 2 * parts[0] + 5 * parts[1] + 2 * parts[2])
    distance = (boxes[0, 0, 4] - truth.boxes[1]).abs().sum()
    torch.testing.assert_close(parts[1][0, 0, 4, 1], distance)
