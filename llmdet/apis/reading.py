"""From what the model found to :class:`Results`: thresholds, look-alikes, overlaps."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdet.apis.merge import nms, unclaimed
from llmdet.apis.questions import Question
from llmdet.apis.results import Picture, Results
from llmdet.errors import ConfigError
from llmdet.prompts.parse import shorten
from llmdet.prompts.types import AnyObject
from llmdet.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

CAPTIONS = ("image", "regions")
#: Neighbouring pixels propose the same object.
_OVERLAP_OF_ANY_OBJECT = 0.7
#: A box of a look-alike that overlaps by more than this is of the same thing.
_OVERLAP_OF_NEGATIVES = 0.7


@dataclass(frozen=True)
class Request:
    """What is to be kept of the detections of every image, and said about them.

    Attributes:
        threshold: detections of a lower score are left out.
        per_class_thresholds: other thresholds for some names.
        nms: overlap (IoU) above which the best of several boxes stays alone, whatever their
            classes; None keeps overlapping boxes.
        captions: any of "image" and "regions", what the language model describes.
        generation: options of transformers' ``generate``.
    """

    threshold: float = 0.3
    per_class_thresholds: Mapping[str, float] = field(default_factory=dict)
    nms: float | None = None
    captions: frozenset[str] = frozenset()
    generation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {"threshold": self.threshold, "nms": 0.0 if self.nms is None else self.nms}
        limits |= {f"per_class_thresholds[{k!r}]": v for k, v in self.per_class_thresholds.items()}
        for name, value in limits.items():
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}: it is a number from 0 to 1.")

    def check_names(self, question: Question) -> None:
        """Raise a ConfigError if a threshold is given for a name that nobody looks for."""
        for name in self.per_class_thresholds:
            if name not in question.wanted:
                raise ConfigError(
                    f"per_class_thresholds has {name!r}, which is not looked for; "
                    f"{did_you_mean(name, question.wanted)}"
                )


def read_captions(captions: bool | str | Collection[str], given_boxes: bool) -> frozenset[str]:
    """Which captions are asked for: True means both, and given boxes are there to be described.

    Raises:
        ConfigError: there is no such kind.
    """
    if captions is True or (captions is False and given_boxes):
        return frozenset(CAPTIONS)
    kinds = {captions} if isinstance(captions, str) else set(captions or ())
    if unknown := kinds - set(CAPTIONS):
        raise ConfigError(
            f"captions has {sorted(map(str, unknown))[0]!r}: choose True, False, or some of "
            f"{', '.join(CAPTIONS)}."
        )
    return frozenset(kinds)


def read_found(
    found: InstanceData, picture: Picture, question: Question, request: Request
) -> Results:
    """The detections of one image that a request wants; the only place where scores are cut.

    Args:
        found: of the model, on the host: ``bboxes`` in pixels of the original image, ``scores``,
            ``labels``, ``label_names``.
        picture: the image.
        question: what was looked for.
        request: what is kept.
    """
    scores = np.asarray(found.scores, dtype=np.float32)
    order = np.argsort(-scores, kind="stable")
    boxes = np.asarray(found.bboxes, dtype=np.float32).reshape(-1, 4)[order]
    labels, scores = np.asarray(found.labels, dtype=np.int64)[order], scores[order]
    names = [str(found.label_names[index]) for index in order]
    kept = unclaimed(boxes, scores, labels >= len(question.wanted), _OVERLAP_OF_NEGATIVES)
    best = float(scores[kept[0]]) if len(kept) else None
    # In float64: float32 would round a threshold to a score just below it.
    limits = np.array(
        [request.per_class_thresholds.get(names[index], request.threshold) for index in kept]
    )
    kept = kept[scores[kept].astype(np.float64) >= limits]
    overlap = request.nms
    if overlap is None and isinstance(question.prompt, AnyObject):
        overlap = _OVERLAP_OF_ANY_OBJECT
    if overlap is not None:
        kept = kept[nms(boxes[kept], scores[kept], overlap)]
    results = Results(picture, boxes, scores, labels, names, question.wanted, best_score=best)
    return results.select(kept)


def given_boxes(boxes: np.ndarray, picture: Picture) -> Results:
    """Boxes of the user in the place of detected ones: [N, 4] xyxy in pixels of the image."""
    count = len(boxes)
    return Results(picture, boxes, None, np.arange(count), ["region"] * count, ("region",))


def spread_boxes(boxes: Any) -> Iterator[np.ndarray | None]:
    """Boxes [N, 4] float32 for image after image, from one set for all or a list with one of each.

    Raises:
        ConfigError: they are no boxes.
    """
    if boxes is None:
        return repeat(None)
    if one_for_each(boxes):
        return iter([checked_boxes(entry) for entry in boxes])
    return repeat(checked_boxes(boxes))


def one_for_each(boxes: Any) -> bool:
    """Whether these are boxes of several images, and not of one."""
    several = isinstance(boxes, (list, tuple)) and len(boxes) > 0
    return several and all(np.ndim(entry) == 2 for entry in boxes)


def checked_boxes(boxes: Any) -> np.ndarray:
    """Boxes as [N, 4] float32, or a ConfigError that says what is wrong with them."""
    array: np.ndarray
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            array = np.asarray(boxes, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise ConfigError(
            f"{shorten(repr(boxes))} is no list of boxes x1, y1, x2, y2 in pixels of the image, "
            "such as [[10, 20, 90, 80]]."
        )
    if (array[:, 2:] <= array[:, :2]).any():
        raise ConfigError(
            f"{shorten(repr(boxes))} has a box whose right or lower side comes first."
        )
    return array


def any_boxes(boxes: Any) -> np.ndarray:
    """As :func:`checked_boxes`, of boxes that may also be none."""
    if hasattr(boxes, "__len__") and not isinstance(boxes, str) and len(boxes) == 0:
        return np.zeros((0, 4), np.float32)
    return checked_boxes(boxes)


def parse_boxes(text: str) -> np.ndarray:
    """Read ``[[x1, y1, x2, y2], ...]``; returns [N, 4] float32 in pixels of the original image.

    Raises:
        ConfigError: the text is no list of boxes, or a box has no area.
    """
    try:
        return checked_boxes(json.loads(text))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{shorten(text)!r} is no list of boxes such as [[10, 20, 90, 80]]."
        ) from error
