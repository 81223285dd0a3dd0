"""From the data samples that a model returns to the rows that metrics and files keep, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.sample import grounding_of
from llmdet.evaluation.predictions import ImagePredictions, LimitPer, prediction_row

WORDS = ("text", "phrases", "indices", "masks")  # of a row; of a sample pred_text, ...


def row_of_sample(sample: Mapping[str, Any]) -> ImagePredictions:
    """What a data sample predicts.

    Args:
        sample: with ``img_id`` and ``pred_instances`` (bboxes xyxy in pixels of the original
            image, scores, labels) or, from a model that answers in words, any of ``pred_text``,
            ``pred_phrases``, ``pred_indices`` and ``pred_masks`` (RLE or binary masks), or both.
    """
    instances = sample.get("pred_instances") or {"bboxes": (), "scores": (), "labels": ()}
    return prediction_row(
        sample["img_id"],
        instances["bboxes"],
        instances["scores"],
        instances["labels"],
        category_ids=grounding_of(sample).category_ids,
        **{name: sample.get(f"pred_{name}") for name in WORDS},
    )


def sample_of_row(
    row: ImagePredictions, sample: DetDataSample, limit_per: LimitPer | None = None
) -> DetDataSample:
    """The sample with a stored row as its prediction, limited as its file says."""
    replayed = DetDataSample(metainfo={**sample.metainfo, "limit_per": limit_per})
    if "gt_instances" in sample:  # phrase grounding takes its ground truth from the sample
        replayed.gt_instances = sample.gt_instances
    replayed.pred_instances = InstanceData(
        bboxes=torch.from_numpy(row.boxes),
        scores=torch.from_numpy(row.scores),
        labels=torch.from_numpy(row.labels),
    )
    for name in WORDS:
        if getattr(row, name) is not None:
            replayed.set_field(getattr(row, name), f"pred_{name}")
    return replayed
