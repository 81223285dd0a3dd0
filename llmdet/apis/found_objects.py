"""What words mean among candidate boxes: what both ways of finding it give."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmdet.apis.images import expand
from llmdet.apis.reading import any_boxes
from llmdet.apis.results import Picture, Results
from llmdet.datasets.candidates import choose_boxes
from llmdet.datasets.pictures import read_picture
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.parse import shorten

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """Those M of an image's candidate boxes that are what was asked for."""

    phrase: str
    boxes: np.ndarray  # [M, 4] float32 xyxy in pixels of the image
    scores: np.ndarray | None  # [M] float32, the probability with which the model named each
    indices: np.ndarray  # [M] int64 into the candidates that were given
    answer: str  # what the model said
    absent: bool  # whether it said that there is no such thing
    left_out: int  # candidates that the model was not shown
    picture: Picture  # that the boxes lie in

    @property
    def results(self) -> Results:
        """The boxes as a detector's, to be drawn, saved and converted."""
        return join_results([self])


def join_results(found: Sequence[FoundObjects]) -> Results:
    """What several phrases mean in one image, as a detector's results; labels are their places."""
    counts = [len(each.boxes) for each in found]
    scores = [each.scores for each in found if each.scores is not None]
    return Results(
        picture=found[0].picture,
        boxes=np.concatenate([each.boxes for each in found]),
        scores=np.concatenate(scores) if len(scores) == len(found) else None,
        labels=np.repeat(np.arange(len(found)), counts),
        names=[each.phrase for each in found for _ in each.boxes],
        classes=tuple(each.phrase for each in found),
    )


def read_scores(scores: Any) -> np.ndarray:
    """Scores of boxes, [N] float32.

    Raises:
        DataError: one of them is no number.
    """
    array: np.ndarray
    try:
        array = np.asarray(scores, np.float32).reshape(-1)
    except (ValueError, TypeError):
        array = np.array([np.nan], np.float32)
    if not np.isfinite(array).all():
        raise DataError(
            f"{shorten(repr(scores))} are no scores of boxes: give a number for each box"
        )
    return array


def check_wording(wording: str) -> None:
    """Refuse a question that does not say what is looked for.

    Raises:
        ConfigError: ``{phrase}`` is not in it.
    """
    if "{phrase}" not in wording:
        raise ConfigError(f"the question {wording!r} needs {{phrase}}, what is looked for")


@dataclass(frozen=True, eq=False)
class ShownCandidates:
    """The candidates of an image, and those of them that a model is shown."""

    boxes: np.ndarray  # [N, 4] float32 xyxy in pixels of the image
    shown: np.ndarray  # [n] int64, rising

    @classmethod
    def choose(cls, boxes: Any, scores: Any, most: int, keep: str) -> ShownCandidates:
        """The best candidates; what is left out is logged.

        Args:
            boxes: [N, 4] xyxy, or a detector's results, which bring their scores.
            scores: [N], or None.
            most: how many can be shown.
            keep: by what the best are chosen, see
                :func:`~llmdet.datasets.candidates.choose_boxes`.

        Raises:
            ConfigError: the boxes are no boxes.
            DataError: there are too many candidates, and no scores to choose by; or a score is no
                number.
        """
        if isinstance(boxes, Results):
            boxes, scores = boxes.boxes, boxes.scores if scores is None else scores
        candidates = any_boxes(boxes)
        given = None if scores is None else read_scores(scores)
        shown = choose_boxes(candidates, most, keep, given)
        if len(shown) < len(candidates):
            logger.warning(
                "%d of %d candidates are left out: the model is shown %d, the best by %s.",
                *(len(candidates) - len(shown), len(candidates), most, keep),
            )
        return cls(candidates, shown)

    def found(
        self,
        picture: Picture,
        phrase: str,
        named: Mapping[int, float | None],
        answer: str,
        absent: bool,
    ) -> FoundObjects:
        """What an answer names.

        Args:
            picture: that the boxes lie in.
            phrase: what was asked for.
            named: position among the shown -> its score, None where there is none.
            answer: what the model said.
            absent: whether it said that there is no such thing.
        """
        indices = self.shown[np.fromiter(named, np.int64, len(named))]
        scores = [score for score in named.values() if score is not None]
        return FoundObjects(
            phrase=phrase,
            boxes=self.boxes[indices],
            scores=np.array(scores, np.float32) if len(scores) == len(named) else None,
            indices=indices,
            answer=answer,
            absent=absent,
            left_out=len(self.boxes) - len(self.shown),
            picture=picture,
        )


def nothing_to_choose(picture: Picture, phrases: Sequence[str]) -> list[FoundObjects]:
    """What phrases mean where there are no candidates: no model has to be asked."""
    none = ShownCandidates(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return [none.found(picture, each, {}, "", absent=True) for each in phrases]


def read_one(image: Any) -> Picture:
    """A file, an array [H, W, 3] uint8 RGB or a PIL image, once it has been read.

    Raises:
        DataError: it stands for several images, or for none.
    """
    sources = list(expand(image))
    if len(sources) != 1:
        raise DataError(f"{image} stands for {len(sources)} images; give one")
    (source,) = sources
    pixels = source if isinstance(source, np.ndarray) else np.asarray(read_picture(source))
    return Picture(source, pixels.shape[1], pixels.shape[0])
