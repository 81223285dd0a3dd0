"""What a metric keeps of every image while predictions arrive.

A reducer holds columns: arrays of equal length, the image ids first, the place within the image
last. Columns of several processes are joined and ordered by these two.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.flickr30k import GroundedPhrase, first_hit
from llmdet.evaluation.predictions import ImagePredictions, prediction_row
from llmdet.evaluation.topk import Columns, TopDetections, empty_columns, join


class Reducer(Protocol):
    """Keeps what an evaluation function needs."""

    def add(self, row: ImagePredictions, sample: Mapping[str, Any]) -> None:
        """Take the prediction of an image; ``sample`` is the data sample that it came with."""

    def columns(self) -> Columns:
        """What this process holds."""

    def clear(self) -> None:
        """Forget all images."""


class Boxes:
    """All boxes, or the best of each image: image ids, labels, boxes, scores, places.

    Args:
        limit: boxes kept per image, all if None.
        label_space: whose the labels are: the ``data set``'s, or each ``image``'s own, whose
            category ids take the place of the labels.
    """

    def __init__(
        self, limit: int | None = None, label_space: Literal["data set", "image"] = "data set"
    ) -> None:
        self.limit = limit
        self.label_space = label_space
        self.clear()

    def clear(self) -> None:
        self._parts: list[Columns] = [empty_columns()]

    def add(self, row: ImagePredictions, sample: Mapping[str, Any]) -> None:
        row = row.chosen()
        best: Any = slice(None)
        if self.limit is not None and len(row.scores) > self.limit:
            best = np.argsort(-row.scores, kind="stable")[: self.limit]
        labels = row.labels
        if self.label_space == "image":
            labels = _category_ids(row)[labels]
        scores = row.scores[best]
        images = np.full(len(scores), row.image_id, np.int64)
        places = np.arange(len(scores), dtype=np.int32)
        self._parts.append((images, labels[best], row.boxes[best], scores, places))

    def columns(self) -> Columns:
        return join(self._parts)


class BestOfClass:
    """The best boxes of each class of the data set, in memory that the classes bound.

    Detections that a limit per image may have cut are refused, since the best of a class may be
    among those that are gone; our detectors say of each sample what their limit is for.

    Args:
        limit: boxes kept per class.
    Raises:
        ConfigError: a sample's ``limit_per`` is "image".
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self._top = TopDetections(self.limit)

    def add(self, row: ImagePredictions, sample: Mapping[str, Any]) -> None:
        if sample.get("limit_per") == "image":
            raise ConfigError(
                "fixed AP counts the best boxes of each class over the whole data set, and the "
                f"detections of image {row.image_id} were limited over all classes together; set "
                "model.test_cfg.limit_per='chunk'"
            )
        row = row.chosen()
        self._top.add(row.image_id, row.boxes, row.scores, row.labels)

    def columns(self) -> Columns:
        return self._top.arrays()


class FirstHits:
    """Per phrase the rank of the first box that hits it: image ids, ranks, places.

    Ground truth comes with the samples: phrases and phrase of each box in their
    :class:`GroundingSample`, and ``gt_instances.bboxes`` in the original image.

    Args:
        boxes: ``any`` box of a phrase may be hit, or their enclosing box (``merged``).
    """

    def __init__(self, boxes: Literal["any", "merged"]) -> None:
        self.boxes = boxes
        self.clear()

    def clear(self) -> None:
        self._images: list[int] = []
        self._ranks: list[int] = []

    def add(self, row: ImagePredictions, sample: Mapping[str, Any]) -> None:
        grounding = grounding_of(sample)
        # a row of the truth has boxes and the phrase of each as label
        truth = prediction_row(
            row.image_id,
            sample["gt_instances"]["bboxes"],
            np.ones(len(grounding.phrase_ids)),
            grounding.phrase_ids,
        )
        order = np.argsort(-row.scores, kind="stable")
        for index in range(len(grounding.phrases)):
            wanted = truth.boxes[truth.labels == index]
            if len(wanted) == 0:
                continue
            candidates = row.boxes[order[row.labels[order] == index]]
            self._images.append(row.image_id)
            self._ranks.append(first_hit(GroundedPhrase((), wanted), candidates, self.boxes))

    def columns(self) -> Columns:
        places = np.arange(len(self._ranks))
        return np.asarray(self._images, np.int64), np.asarray(self._ranks, np.int64), places


class Rows:
    """Whole rows with what was said: image ids, rows as objects, places."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._rows: list[ImagePredictions] = []

    def add(self, row: ImagePredictions, sample: Mapping[str, Any]) -> None:
        self._rows.append(row)

    def columns(self) -> Columns:
        rows = np.empty(len(self._rows), object)
        rows[:] = self._rows
        images = np.asarray([row.image_id for row in self._rows], np.int64)
        return images, rows, np.zeros(len(rows), np.int32)


def _category_ids(row: ImagePredictions) -> np.ndarray:
    if row.category_ids is None:
        raise DataError(
            f"image {row.image_id} has no category_ids; add 'category_ids' to the meta_keys of "
            "PackDetInputs, or end the pipeline with PackGroundingInputs"
        )
    return np.asarray(row.category_ids, np.int64)
