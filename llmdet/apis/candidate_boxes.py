"""Candidate boxes that a user gives, in a file or by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmdet.apis.found_objects import read_scores
from llmdet.apis.merge import nms
from llmdet.apis.reading import checked_boxes, parse_boxes
from llmdet.errors import ConfigError, DataError
from llmdet.utils.files import read_json


def read_boxes(
    given: str, threshold: float = 0.0, overlap: float = 1.0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Boxes [N, 4] float32 xyxy in pixels of the image, and their scores [N], None without.

    Args:
        given: ``[[x1, y1, x2, y2], ...]``, a file of such boxes or of ones with a score behind, or
            what ``image_demo.py`` or ``Results.save`` wrote as JSON.
        threshold: boxes with a lower score are left out.
        overlap: of boxes with scores that overlap by more than this, the best stays.

    Raises:
        ConfigError: they are no boxes.
        DataError: the file cannot be read, or has not as many scores as boxes.
    """
    if given.lstrip().startswith("["):
        return parse_boxes(given), None
    content = read_json(given)
    boxes, scores = _split(content, given)
    if scores is None:
        return boxes, None
    kept = np.flatnonzero(scores >= threshold)
    kept = kept[nms(boxes[kept], scores[kept], overlap)]
    return boxes[kept], scores[kept]


def _split(content: Any, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(content, Mapping):
        if "bboxes" not in content:
            raise DataError(f"{path} has no 'bboxes': it is no JSON of image_demo.py")
        listed, scores = content["bboxes"], content.get("scores")
    else:
        listed, scores = content, None
        if isinstance(content, list) and content and all(map(_has_score, content)):
            listed, scores = [row[:4] for row in content], [row[4] for row in content]
    if listed == []:
        return np.zeros((0, 4), np.float32), None
    try:
        boxes = checked_boxes(listed)
        array = None if scores is None else read_scores(scores)
    except (ConfigError, DataError) as error:
        raise DataError(f"{path}: {error}") from error
    if array is not None and len(array) != len(boxes):
        raise DataError(f"{path} has {len(boxes)} boxes and {len(array)} scores")
    return boxes, array


def _has_score(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 5
