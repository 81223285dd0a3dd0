"""Referring expressions: annotations in MDETR's layout and scored boxes per expression."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import DataError
from llmdet.utils.files import read_json, read_npz, require

NO_TARGET = -1  # category id of the only annotation of an expression that nothing answers to


@dataclasses.dataclass(frozen=True)
class Expression:
    """One referring expression and the boxes that it refers to."""

    id: int  # image id of MDETR's layout, which has one "image" per expression
    dataset: str  # refcoco, refcoco+, refcocog, grefcoco
    boxes: np.ndarray  # [N, 4] float64 xyxy; empty if nothing answers to the expression


@dataclasses.dataclass(frozen=True)
class ScoredBoxes:
    """Predicted boxes of one expression, in file order."""

    boxes: np.ndarray  # [N, 4] xyxy
    scores: np.ndarray  # [N]

    def by_score(self) -> np.ndarray:
        """The boxes, best score first; equal scores keep their order."""
        return self.boxes[np.argsort(-self.scores, kind="stable")]


EMPTY = ScoredBoxes(np.zeros((0, 4)), np.zeros(0))


def read_expressions(path: str | Path) -> list[Expression]:
    """Expressions of a RefCOCO, RefCOCO+, RefCOCOg or gRefCOCO file in MDETR's layout."""
    return parse_expressions(read_json(path), str(path))


def parse_expressions(data: Mapping[str, Any], where: str = "annotations") -> list[Expression]:
    """Expressions in the order of ``images``.

    Raises:
        DataError: a list or field is missing or an expression has no annotation at all.
    """
    boxes: dict[int, list[list[float]]] = {}
    annotated: set[int] = set()
    for index, annotation in enumerate(require(dict(data), "annotations", where)):
        place = f"{where}: annotations[{index}]"
        image = require(annotation, "image_id", place)
        annotated.add(image)
        if annotation.get("category_id") == NO_TARGET:
            continue
        x, y, width, height = require(annotation, "bbox", place)
        boxes.setdefault(image, []).append([x, y, x + width, y + height])
    expressions = []
    for image in require(dict(data), "images", where):
        identity = require(image, "id", f"{where}: images")
        if identity not in annotated:
            raise DataError(f"{where}: expression {identity} has no annotation")
        expressions.append(
            Expression(
                id=identity,
                dataset=require(image, "dataset_name", f"{where}: image {identity}"),
                boxes=np.asarray(boxes.get(identity, []), np.float64).reshape(-1, 4),
            )
        )
    return expressions


def read_expression_boxes(path: str | Path) -> dict[int, ScoredBoxes]:
    """Scored boxes by expression id from npz rows ``image_id``, ``bbox_xyxy``, ``score``."""
    image_ids, boxes, scores = read_npz(path, "image_id", "bbox_xyxy", "score")
    return group_boxes(image_ids, boxes.reshape(-1, 4), scores)


def group_boxes(
    image_ids: np.ndarray, boxes: np.ndarray, scores: np.ndarray
) -> dict[int, ScoredBoxes]:
    """Split rows by image id, keeping their order."""
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {
        int(identity): ScoredBoxes(boxes[rows].astype(np.float64), scores[rows])
        for identity, rows in zip(ids, parts, strict=False)
    }
