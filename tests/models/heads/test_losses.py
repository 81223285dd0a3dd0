"""The losses against their formulas, written out box by box and token by token."""

import math

import pytest
import torch
import torch.distributed as dist

from llmdet.models.heads.losses import BoxCount, GroundingLoss
from llmdet.models.heads.matching import Targets
from llmdet.models.structures import DenoisingQueries, Matches
from llmdet.models.transformer.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from llmdet.models.transformer.denoising import DenoisingQueryGenerator
from llmdet.testing.processes import run_processes

SIZE = (60, 80)
Q, TOKENS = 6, 5
NONE = torch.zeros(0, dtype=torch.long)


def target(count, tokens=TOKENS):
    first = torch.rand(count, 2) * 0.5
    corners = torch.cat([first, first + 0.1 + torch.rand(count, 2) * 0.4], -1).double()
    positive = (torch.rand(count, tokens) > 0.5).double()
    return Targets(xyxy_to_cxcywh(corners), corners, positive, SIZE)


def predictions(images):
    boxes = torch.rand(images, Q, 4).double() * 0.4 + 0.2
    return torch.randn(images, Q, TOKENS).double() * 3, boxes


def count_of(boxes, classified=None):
    """What sums are divided by."""
    number = torch.tensor(boxes, dtype=torch.float64)
    return BoxCount(number, number if classified is None else classified)


def of_layer(logits, boxes, targets, matches, average=2.0, **settings):
    losses = GroundingLoss(**settings).of_layers(
        logits[None], boxes[None], targets, [matches], count_of(average)
    )
    return {name: value.squeeze(0) for name, value in losses.items()}


def focal(logit, wanted, alpha=0.25, gamma=2.0):
    p = 1 / (1 + math.exp(-logit))
    if wanted:
        return -alpha * (1 - p) ** gamma * math.log(p)
    return -(1 - alpha) * p**gamma * math.log(1 - p)


def giou(first, second):
    """Of two boxes xyxy."""
    ax, ay, bx, by = first
    cx, cy, dx, dy = second
    inter = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - inter
    hull = (max(bx, dx) - min(ax, cx)) * (max(by, dy) - min(ay, cy))
    return inter / union - (hull - union) / hull


def by_definition(logits, boxes, targets, matches, average):
    cls = l1 = iou = 0.0
    for image, truth in enumerate(targets):
        pairs = dict(
            zip(
                matches.query_indices[image].tolist(),
                matches.box_indices[image].tolist(),
                strict=True,
            )
        )
        for query in range(Q):
            for token in range(logits.shape[-1]):
                logit = float(logits[image, query, token])
                wanted = query in pairs and bool(truth.positive_map[pairs[query], token])
                cls += 0.0 if logit == -math.inf else focal(logit, wanted)
            if query in pairs:
                box = pairs[query]
                l1 += float((boxes[image, query] - truth.boxes[box]).abs().sum())
                pixels = torch.tensor([SIZE[1], SIZE[0]] * 2)
                corners = cxcywh_to_xyxy(boxes[image, query]) * pixels
                iou += 1 - giou(corners.tolist(), (truth.corners[box] * pixels).tolist())
    return {"loss_cls": cls / average, "loss_bbox": 5 * l1 / average, "loss_iou": 2 * iou / average}


def test_focal_l1_and_giou_are_summed_over_matches_and_divided_by_their_number():
    logits, boxes = predictions(2)
    logits[1, :, 3:] = float("-inf")  # a shorter prompt
    targets = [target(3), target(1)]
    targets[1].positive_map[:, 3:] = 0
    matches = Matches(
        (torch.tensor([4, 0, 2]), torch.tensor([5])), (torch.tensor([0, 1, 2]), torch.tensor([0]))
    )
    found = of_layer(logits, boxes, targets, matches, average=4.0)
    expected = by_definition(logits, boxes, targets, matches, 4.0)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert float(value) == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("counts", [(3, 0, 1), (0, 0, 0), (1, 0, 0)])
@pytest.mark.parametrize("sync", [True, False])
def test_losses_of_all_layers_at_once_are_those_of_each_layer(counts, sync):
    targets = [target(count) for count in counts]
    logits, boxes = (
        torch.stack(parts) for parts in zip(*(predictions(3) for _ in range(4)), strict=True)
    )
    matches = [
        Matches(
            tuple(torch.randperm(Q)[:count] for count in counts),
            tuple(torch.randperm(count) for count in counts),
        )
        for _ in range(4)
    ]
    own = None if sync else GroundingLoss(sync_avg_factor=False).average_count(sum(counts), logits)
    average = count_of(3.0, own and own.of_classification)
    found = GroundingLoss().of_layers(logits, boxes, targets, matches, average)
    for layer, layer_matches in enumerate(matches):
        average = 3.0 if sync else max(sum(counts), 1)
        expected = by_definition(logits[layer], boxes[layer], targets, layer_matches, 1.0)
        for name, value in expected.items():
            number = average if name == "loss_cls" else 3.0
            assert float(found[name][layer]) == pytest.approx(value / number, rel=1e-6), name


def test_an_image_without_boxes_still_teaches_that_nothing_is_there():
    logits, boxes = (tensor.requires_grad_() for tensor in predictions(1))
    found = of_layer(logits, boxes, [target(0)], Matches((NONE,), (NONE,)), average=1.0)
    assert float(found["loss_cls"]) > 0
    assert float(found["loss_bbox"]) == float(found["loss_iou"]) == 0
    sum(found.values()).backward()
    assert logits.grad.abs().min() > 0  # pushed down everywhere
    assert not boxes.grad.any()


def test_perfect_predictions_cost_almost_nothing_and_padding_costs_nothing():
    truth = target(2)
    queries, order = torch.tensor([4, 1]), torch.tensor([0, 1])
    logits = torch.full((1, Q, TOKENS + 2), -30.0).double()
    logits[0, queries, :TOKENS] = (truth.positive_map * 60 - 30)[order]
    logits[..., TOKENS:] = float("-inf")
    boxes = torch.rand(1, Q, 4).double()
    boxes[0, queries] = truth.boxes[order]
    longer = torch.cat([truth.positive_map, torch.zeros(2, 2)], 1)
    padded = Targets(truth.boxes, truth.corners, longer, SIZE)
    losses = of_layer(logits, boxes, [padded], Matches((queries,), (order,)))
    assert all(float(loss) < 1e-5 for loss in losses.values())


def test_losses_are_per_matched_box_whatever_the_batch_size():
    truth, (logits, boxes), index = target(3), predictions(1), torch.arange(3)
    once = of_layer(logits, boxes, [truth], Matches((index,), (index,)), average=3.0)
    twice = of_layer(
        logits.repeat(2, 1, 1),
        boxes.repeat(2, 1, 1),
        [truth] * 2,
        Matches((index,) * 2, (index,) * 2),
        average=6.0,
    )
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value)


def test_weights_of_the_config_multiply_each_loss():
    truth, (logits, boxes), index = target(3), predictions(1), torch.arange(3)
    given = (logits, boxes, [truth], Matches((index,), (index,)))
    plain = of_layer(*given)
    heavy = of_layer(
        *given,
        loss_cls={"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 3.0},
        loss_bbox={"type": "L1Loss", "loss_weight": 10.0},
        loss_iou={"type": "GIoULoss", "loss_weight": 1.0},
    )
    for name, factor in (("loss_cls", 3), ("loss_bbox", 2), ("loss_iou", 0.5)):
        torch.testing.assert_close(heavy[name], factor * plain[name])


def test_gradients_are_those_of_finite_differences():
    truth, (logits, boxes), index = target(2), predictions(1), torch.tensor([3, 1])
    matches = Matches((index,), (torch.arange(2),))
    inputs = [logits.requires_grad_(), boxes.requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda x, b: sum(of_layer(x, b, [truth], matches).values()), inputs
    )


def denoising(targets, groups=2):
    make = DenoisingQueryGenerator(8, 4, Q, group_cfg={"dynamic": False, "num_groups": groups})
    corners = [truth.corners.float() for truth in targets]
    return make(corners, [torch.zeros(len(c), dtype=torch.long) for c in corners])


def test_positive_denoising_queries_must_find_their_own_box_and_others_nothing():
    targets = [target(2), target(1)]
    queries: DenoisingQueries = denoising(targets)
    total = queries.content.shape[1]  # 2 groups x (2 positive + 2 negative)
    assert total == 8
    logits = torch.randn(2, total, TOKENS).double()
    boxes = torch.rand(2, total, 4).double() * 0.4 + 0.2
    found = GroundingLoss().of_denoising(
        torch.stack([logits, -logits]), torch.stack([boxes] * 2), targets, queries, count_of(6.0)
    )
    matches = Matches(
        (torch.tensor([0, 1, 4, 5]), torch.tensor([0, 4])),
        (torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0])),
    )
    for layer, sign in enumerate((1, -1)):
        expected = of_layer(sign * logits, boxes, targets, matches, 6.0)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name][layer], value)


def test_without_any_box_denoising_losses_are_zero_and_reach_their_embedding():
    targets = [target(0), target(0)]
    queries = denoising(targets)
    found = GroundingLoss().of_denoising(
        torch.zeros(3, 2, 0, TOKENS), torch.zeros(3, 2, 0, 4), targets, queries, count_of(1.0)
    )
    assert {name: value.tolist() for name, value in found.items()} == {
        "loss_cls": [0.0] * 3,
        "loss_bbox": [0.0] * 3,
        "loss_iou": [0.0] * 3,
    }
    assert all(value.requires_grad for value in found.values())


def counts_of_a_process():
    loss, rank = GroundingLoss(), dist.get_rank()
    counts = [loss.average_count(n, torch.zeros(1), p) for n, p in ((4 * rank, 1), (0, 1), (0, 4))]
    return [float(count.of_boxes) for count in counts]


def test_the_number_of_boxes_is_the_mean_of_all_processes_and_at_least_one_a_step(tmp_path):
    assert run_processes(2, counts_of_a_process, folder=tmp_path) == [[2.0, 1.0, 0.25]] * 2
