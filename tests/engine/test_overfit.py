"""A detector that learns two images by heart, and one whose data contradict themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine.overfit import OverfitResult, overfit
from llmdet.errors import DataError
from llmdet.testing.models import tiny_grounding_dino

TEXT = "red circle. blue square. "
SPANS = {0: [[0, 10]], 1: [[12, 23]]}


def packed(seed: int, boxes: list[list[float]], labels: list[int]) -> dict[str, Any]:
    """A dark image with one bright rectangle for each box, red or blue by its label."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 40, (3, 64, 64), generator=generator, dtype=torch.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        image[2 if label == 0 else 0, int(y1) : int(y2), int(x1) : int(x2)] = 250  # BGR
    sample = DetDataSample(
        metainfo={
            "img_shape": (64, 64),
            "ori_shape": (64, 64),
            "scale_factor": (1.0, 1.0),
            "img_path": f"{seed}.jpg",
            "text": TEXT,
            # As in training: names without a box are in the text, but have no spans.
            "tokens_positive": {label: SPANS[label] for label in sorted(set(labels))},
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.int64)
    )
    return {"inputs": image, "data_samples": sample}


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    return [
        packed(0, [[4.0, 4.0, 30.0, 28.0], [36.0, 30.0, 60.0, 60.0]], [0, 1]),
        packed(1, [[20.0, 8.0, 52.0, 40.0]], [1]),
    ]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def test_loss_falls_and_ap_rises_on_images_that_can_be_learnt(bert: str, samples) -> None:
    torch.manual_seed(0)
    result = overfit(tiny_grounding_dino(bert), samples, steps=60, lr=2e-3, batch_size=1)
    assert len(result.losses) == 60
    assert result.loss_fell
    assert result.ap_after > result.ap_before
    assert result.ap_rose


def test_a_loss_that_is_not_finite_names_itself_and_the_images(bert: str, samples) -> None:
    model = tiny_grounding_dino(bert)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=r"the losses .*loss_.* are not finite on 0\.jpg, 1\.jpg"):
        overfit(model, samples, steps=1, lr=1e-3, batch_size=2)


@pytest.mark.parametrize(
    ("losses", "before", "after", "fell", "rose"),
    [
        ((10.0,) * 20, 0.0, 0.5, False, True),
        ((10.0,) * 10 + (5.0,) * 10, 0.2, 0.2, True, False),
        ((10.0,) * 10 + (5.0,) * 10, 1.0, 1.0, True, True),
    ],
)
def test_the_verdict_follows_loss_and_ap(losses, before, after, fell, rose) -> None:
    result = OverfitResult(losses, before, after)
    assert (result.loss_fell, result.ap_rose) == (fell, rose)
