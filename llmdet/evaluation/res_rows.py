"""Masks that rows of conversations ask for, and those that a model answered with."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils

from llmdet.datasets.masks import decode_mask, encode_mask, join_masks
from llmdet.datasets.question_rows import RowQuestion, read_questions
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError
from llmdet.evaluation.loading import Source, rows_of
from llmdet.evaluation.res import encode
from llmdet.prompts.mask_tasks import NO_TARGET

Rle = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class MaskOfQuestion:
    """What a question asks the mask of."""

    id: int
    mask: Rle  # of all regions that the answer shows
    has_target: bool  # False where the answer says that there is nothing

    def compared(self, said: Sequence[Rle]) -> dict[str, Any]:
        """The image that ``res_scores`` compares, with all masks of an answer as one."""
        where = f"the prediction of question {self.id}"
        size = self.mask["size"]
        encoded = [encode(mask, where) for mask in said]
        wrong = next((mask["size"] for mask in encoded if list(mask["size"]) != list(size)), None)
        if wrong is not None:
            raise DataError(f"{where} has a mask of the size {wrong}, its picture {size}")
        joined = mask_utils.merge(encoded) if encoded else _empty(size)
        return {"image_id": self.id, "refs": [{"gt": self.mask, "pred": joined}]}


def read_row_masks(path: str | Path) -> list[MaskOfQuestion]:
    """The questions of a JSONL file whose answers show masks, or say that there is nothing.

    Raises:
        DataError: there is none, or a row does not say the size of its picture.
    """
    questions = [
        _question(question, str(path))
        for question in read_questions(path)
        if question.masks or question.answer == NO_TARGET
    ]
    if not questions:
        raise DataError(f"{path}: no answer shows a mask")
    return questions


def load_row_masks(source: Source) -> dict[int, tuple[Rle, ...]]:
    """The masks of each answer by question.

    Raises:
        DataError: the source is no prediction file, or a row has no masks.
    """
    rows = rows_of(source)
    if rows is None:
        raise DataError(f"{source} is no prediction file, which has the masks of each question")
    for row in rows:
        if row.masks is None:
            raise DataError(
                f"the prediction of question {row.image_id} has no masks: test a model with "
                "output=dict(type='Mask')"
            )
    return {row.image_id: tuple(row.masks or ()) for row in rows}


def _question(question: RowQuestion, path: str) -> MaskOfQuestion:
    row = question.row
    if row.height is None or row.width is None:
        raise DataError(f"{path}: question {question.id} is about a picture without width, height")
    size = row.height, row.width
    masks = [_mask(question, index) for index in question.masks]
    joined = join_masks(masks, size)
    encoded = _empty(size) if joined is None else encode_mask(decode_mask(joined, size))
    return MaskOfQuestion(question.id, encoded, bool(question.masks))


def _mask(question: RowQuestion, index: int) -> Mask:
    """A region's mask, its filled box where it has none."""
    regions = question.row.regions
    mask = None if regions.masks is None else regions.masks[index]
    if mask is not None:
        return mask
    x1, y1, x2, y2 = map(float, regions.boxes[index])
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def _empty(size: Sequence[int]) -> Rle:
    height, width = size
    return {"size": [height, width], "counts": [height * width]}
