"""Learn a handful of images by heart: the quickest sign that data and model fit each other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from llmdet.datasets.sample import GroundingSample, grounding_of
from llmdet.errors import DataError
from llmdet.evaluation.coco_ap import coco_ap
from llmdet.evaluation.detections import DetectionTable, empty_detections
from llmdet.evaluation.ground_truth import parse_coco
from llmdet.models.detectors.targets import training_prompt
from llmdet.prompts.types import Spans
from llmdet.prompts.writing import entity_names

_CLIP_NORM = 0.1  # of the gradient, as in Grounding DINO's training
_WARM_UP = 10  # steps


@dataclass(frozen=True)
class OverfitResult:
    """What happened while the images were learnt."""

    losses: tuple[float, ...]  # the whole loss before each step
    ap_before: float  # COCO AP at IoU 0.5 on the same images
    ap_after: float

    @property
    def loss_fell(self) -> bool:
        """Whether the loss of the last steps is clearly below that of the first ones."""
        few = max(1, len(self.losses) // 10)
        return float(np.mean(self.losses[-few:])) < 0.9 * float(np.mean(self.losses[:few]))

    @property
    def ap_rose(self) -> bool:
        """Whether AP rose, or was as good as perfect from the beginning."""
        return self.ap_after > self.ap_before or self.ap_after > 0.95


def overfit(
    model: Any,
    packed: Sequence[dict[str, Any]],
    *,
    steps: int,
    lr: float,
    batch_size: int,
    progress: Callable[[Any], Any] = iter,
) -> OverfitResult:
    """Train a detector on the same few samples, with detection AP on them before and after.

    Args:
        model: A detector, already on its device; its weights are changed.
        packed: Samples as the training pipeline packs them.
        steps: Optimiser steps, each over all samples.
        lr: Learning rate of AdamW, after a short warm-up.
        batch_size: Samples per forward pass.
        progress: Wraps the sequence of steps.

    Raises:
        DataError: The loss is not a finite number; names the losses at fault.
    """
    batches = [
        model.data_preprocessor(pseudo_collate(list(packed[start : start + batch_size])), True)
        for start in range(0, len(packed), batch_size)
    ]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP)
    )
    ap_before = average_precision(model, batches)
    losses = []
    model.train()
    for _ in progress(range(steps)):
        optimizer.zero_grad(set_to_none=True)
        losses.append(sum(_backward(model, batch, len(batches)) for batch in batches))
        nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        scheduler.step()
    return OverfitResult(tuple(losses), ap_before, average_precision(model, batches))


def _backward(model: Any, batch: dict[str, Any], parts: int) -> float:
    losses = model.loss(batch["inputs"], batch["data_samples"])
    total, logged = model.parse_losses(losses)
    if not torch.isfinite(total):
        wrong = [name for name, value in logged.items() if not torch.as_tensor(value).isfinite()]
        names = ", ".join(sample.metainfo.get("img_path", "?") for sample in batch["data_samples"])
        raise DataError(f"the losses {', '.join(wrong)} are not finite on {names}")
    (total / parts).backward()
    return float(total.detach()) / parts


@torch.no_grad()
def average_precision(model: Any, batches: Sequence[dict[str, Any]]) -> float:
    """COCO AP at IoU 0.5 of a detector on training batches; equal phrases are one class."""
    categories: dict[str, int] = {}
    annotations: list[dict[str, Any]] = []
    columns: list[tuple[np.ndarray, ...]] = []
    with _evaluating(model):
        for batch in batches:
            questions = [_named_only(sample, model) for sample in batch["data_samples"]]
            for sample in model.predict(batch["inputs"], questions, rescale=False):
                names = [name.lower() for name in entity_names(grounding_of(sample).prompt)]
                ids = [categories.setdefault(name, len(categories)) for name in names]
                annotations += _annotations(sample.gt_instances, ids, len(columns), annotations)
                columns.append(_detections(sample.pred_instances, ids, len(columns)))
    truth = parse_coco(
        {
            "images": [{"id": i} for i in range(len(columns))],
            "categories": [{"id": i, "name": name} for name, i in categories.items()],
            "annotations": annotations,
        }
    )
    images, labels, boxes, scores = map(np.concatenate, zip(*columns, strict=True))
    found = DetectionTable(images, labels, boxes, scores)
    return coco_ap(truth, found if len(found) else empty_detections())["AP50"]


def _named_only(sample: Any, model: Any) -> Any:
    """The sample with a prompt for the phrases of its boxes; labels become positions among them.

    Training text also holds names without a box.
    """
    written = training_prompt(sample, model.language_model.prompts)
    given = sample.gt_instances.labels.tolist()
    order = sorted(set(given))
    spans = Spans(written.text, tuple(written.spans[label] for label in order))
    question = copy.deepcopy(sample)
    question.set_metainfo({"grounding": GroundingSample(spans)})
    labels = [order.index(label) for label in given]
    question.gt_instances.labels = torch.tensor(labels, dtype=torch.int64)
    return question


def _annotations(
    truth: Any, ids: Sequence[int], image_id: int, earlier: Sequence[Any]
) -> list[dict[str, Any]]:
    boxes: list[list[float]] = _host(getattr(truth.bboxes, "tensor", truth.bboxes)).tolist()
    records: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), label in zip(boxes, truth.labels.tolist(), strict=True):
        records.append(
            {
                "id": len(earlier) + len(records) + 1,
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
            }
        )
    return records


def _detections(found: Any, ids: Sequence[int], image_id: int) -> tuple[np.ndarray, ...]:
    labels = found.labels.tolist()
    return (
        np.full(len(labels), image_id),
        np.array([ids[label] for label in labels], np.int64),
        np.asarray(_host(found.bboxes), np.float64).reshape(-1, 4),
        np.asarray(_host(found.scores), np.float64),
    )


def _host(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
