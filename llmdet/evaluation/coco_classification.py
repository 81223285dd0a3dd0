"""Naming the annotated objects of COCO: AP with right boxes, and accuracy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmdet.evaluation.coco_ap import coco_ap
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth
from llmdet.prompts.region_tasks import read_class

_REPORTED = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_classification(truth: GroundTruth, answers: Mapping[int, str]) -> dict[str, Any]:
    """COCO AP and accuracy of names that were said of annotated objects.

    Every object, but for crowds, is a detection of score 1 with its own box and the class that
    the answer names. An answer that names none of the classes is discarded: its object is not
    detected, and its answer is wrong. For AP a name counts up to the first comma and in any case;
    ``accuracy`` compares the whole answer with the name as it is written, and
    ``accuracy_of_names`` what AP compares.

    Args:
        truth: annotations.
        answers: by annotation id; objects without one count as discarded.

    Returns:
        AP by name, ``accuracy``, ``accuracy_of_names``, and the numbers ``discarded`` and
        ``regions``.

    Source: RegionGPT (Guo et al. 2024, Table 3) and SpatialRGPT's program.
    """
    objects = truth.select(~truth.crowd)
    names = dict(zip(truth.category_ids.tolist(), truth.category_names, strict=True))
    categories = {name.lower(): category for category, name in names.items()}
    kept, named, exact = [], [], 0
    pairs = zip(objects.ids.tolist(), objects.categories.tolist(), strict=True)
    for place, (identity, category) in enumerate(pairs):
        answer = answers.get(identity, "")
        exact += answer == names[category]
        found = categories.get(read_class(answer))
        if found is not None:
            kept.append(place)
            named.append(found)
    rows = np.asarray(kept, np.int64)
    said = np.asarray(named, np.int64)
    table = DetectionTable(
        objects.images[rows], said, objects.boxes[rows], np.ones(len(rows)), mode="xywh"
    )
    values = coco_ap(truth, table)
    total = max(1, len(objects.ids))
    return {
        **{name: values[name] for name in _REPORTED},
        "accuracy": exact / total,
        "accuracy_of_names": int((said == objects.categories[rows]).sum()) / total,
        "discarded": len(objects.ids) - len(rows),
        "regions": len(objects.ids),
    }
