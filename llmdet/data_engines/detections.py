"""Boxes of phrases, by a detector in this process or out of a file: models of a flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from llmdet.chat import Pace
from llmdet.data_engines.identities import hash_of_files
from llmdet.data_engines.object_words import stems
from llmdet.datasets.formats.writing import readable_name
from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_iou
from llmdet.evaluation.predictions import read_predictions
from llmdet.utils.files import read_json, require

#: Boxes and scores are kept to so many decimals, which is finer than any detector.
_BOX_DECIMALS, _SCORE_DECIMALS = 2, 4


@dataclass(frozen=True)
class Search:
    """What is looked for in a picture."""

    filename: str  # below the folder of the pictures
    image: Image.Image
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A box and what it is."""

    bbox: list[float]  # x1, y1, x2, y2 in pixels, inside the picture
    phrase: str  # one of those that were looked for, or the name that a file has for it
    score: float

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height of the box."""
        x1, y1, x2, y2 = self.bbox
        return x2 - x1, y2 - y1


class BoxSource(Protocol):
    """Finds phrases in pictures; a model of a flow."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what is found, as JSON."""

    @property
    def pace(self) -> Pace:
        """How many pictures it takes at a time."""

    def answer(self, requests: Sequence[Search]) -> list[list[Found] | DataError]:
        """What was found in each picture, the best first; or why nothing can be looked for."""


class DetectedBoxes:
    """What a detector finds in pictures.

    Args:
        detector: a ``llmdet.apis.Detector``.
        identity: of its config and weights, as JSON.
        threshold: the least score.
        batch_size: pictures that pass through it together.
    """

    def __init__(
        self, detector: Any, identity: Mapping[str, Any], threshold: float, batch_size: int = 1
    ) -> None:
        self.detector = detector
        self.identity = {**identity, "threshold": threshold}
        self.threshold = threshold
        self.pace = Pace(batch_size)

    def answer(self, requests: Sequence[Search]) -> list[list[Found] | DataError]:
        """Look for each picture's phrases; a phrase that cannot be one fails its picture alone."""
        try:
            return self._find(requests)
        except DataError as error:
            if len(requests) == 1:
                return [error]
            return [answer for request in requests for answer in self.answer([request])]

    def _find(self, requests: Sequence[Search]) -> list[list[Found] | DataError]:
        results = self.detector.predict(
            [request.image for request in requests],
            prompts=[list(request.phrases) for request in requests],
            threshold=self.threshold,
            batch_size=self.pace.batch_size,
        )
        return [
            found_in(
                request.image.size,
                found.boxes,
                found.scores,
                [request.phrases[label] for label in found.labels.tolist()],
            )
            for request, found in zip(requests, results, strict=True)
        ]


class FiledBoxes:
    """Boxes of a prediction file in place of a detector's.

    A box is of the first phrase that ends in the name of its class ("the red cars" in "car"), and
    else keeps that name.

    Args:
        predictions: of ``tools/test.py --out``.
        annotations: the COCO json that was tested, whose images have file names.
        threshold: the least score.

    Raises:
        DataError: a file cannot be read, or they are not about the same images.
    """

    pace = Pace(64)

    def __init__(self, predictions: Path, annotations: Path, threshold: float) -> None:
        self.identity = {
            "predictions": hash_of_files(predictions),
            "images of the predictions": hash_of_files(annotations),
            "threshold": threshold,
        }
        self.threshold = threshold
        header, rows = read_predictions(predictions)
        self.names = header.category_names or header.classes
        if not self.names:
            raise DataError(f"{predictions} names no classes: its boxes say nothing of phrases.")
        numbers = {}
        for number, image in enumerate(require(read_json(annotations), "images", f"{annotations}")):
            where = f"{annotations}: images[{number}]"
            numbers[require(image, "id", where)] = require(image, "file_name", where)
        self.rows = {numbers[row.image_id]: row for row in rows if row.image_id in numbers}
        if not self.rows:
            raise DataError(f"{predictions} and {annotations} have no image id in common.")

    def answer(self, requests: Sequence[Search]) -> list[list[Found] | DataError]:
        """The boxes of each picture; of one that the file does not have it says so."""
        return [self._of(request) for request in requests]

    def _of(self, request: Search) -> list[Found] | DataError:
        row = self.rows.get(request.filename)
        if row is None:
            return DataError("the predictions do not have it")
        there = np.flatnonzero(row.scores >= self.threshold)
        names = [readable_name(self.names[label]) for label in row.labels[there].tolist()]
        phrases = [phrase_of(name, request.phrases) for name in names]
        return found_in(request.image.size, row.boxes[there], row.scores[there], phrases)


def phrase_of(name: str, phrases: Iterable[str]) -> str:
    """The phrase that ends in a class name, in singular or plural; the name where none does."""
    wanted = stems(name)
    for phrase in phrases:
        if wanted and stems(phrase)[-len(wanted) :] == wanted:
            return phrase
    return name


def found_in(
    size: tuple[int, int], boxes: np.ndarray, scores: np.ndarray, phrases: Sequence[str]
) -> list[Found]:
    """Boxes that lie in a picture, the best first.

    Args:
        size: (width, height) of the picture.
        boxes: [N, 4] xyxy in its pixels.
        scores: [N].
        phrases: N.
    """
    inside = np.clip(boxes.astype(np.float64), 0, [*size, *size]).round(_BOX_DECIMALS)
    order = np.argsort(-scores, kind="stable").tolist()
    return [
        Found(inside[n].tolist(), phrases[n], round(float(scores[n]), _SCORE_DECIMALS))
        for n in order
        if (inside[n, 2:] > inside[n, :2]).all()
    ]


def apart(found: Sequence[Found], overlap: float) -> list[Found]:
    """The best of boxes that overlap, whatever they are of.

    Args:
        found: the best first.
        overlap: IoU above which a box stands for the same thing as a better one.
    """
    boxes = np.array([one.bbox for one in found], np.float64).reshape(-1, 4)
    same = pairwise_iou(boxes, boxes) > overlap
    kept: list[int] = []
    for number in range(len(found)):
        if not same[number, kept].any():
            kept.append(number)
    return [found[number] for number in kept]
