"""One row of grounding JSONL, read into typed objects: the schema of docs/data.md.

Structural faults (a missing field, a wrong type, a mark without its region) raise
:class:`DataError` with file, line and field. Whether a box can be learnt from is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmdet.datasets.expressions import ExpressionPair, read_pairs
from llmdet.datasets.fields import Fields, is_index, is_number
from llmdet.datasets.masks import mask_box
from llmdet.datasets.sample import Mask, Regions
from llmdet.prompts.conversation import Conversation, Turn, with_image
from llmdet.prompts.masks import marked_regions

#: Who speaks, as files of LLaVA's kind and chat templates say it.
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of the caption, and the boxes that they name."""

    boxes: list[list[float]]  # x1, y1, x2, y2 in pixels
    masks: list[Mask | None]  # of each box
    words: str | list[str]  # one wording, or several to choose from
    spans: list[list[int]]  # [start, end) characters of the caption


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box of a class."""

    box: list[float]  # x1, y1, x2, y2 in pixels
    label: int
    category: str  # the class's name, empty where the row does not say it
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class Row:
    """What a row says of its image."""

    where: str  # file and line
    filename: str
    width: int | None
    height: int | None
    image_id: Any = None
    caption: str | None = None  # of grounding form: the text that spans point into
    phrases: list[Phrase] = field(default_factory=list)  # of grounding form
    boxes: list[LabelledBox] | None = None  # of detection form, None without "detection"
    pairs: list[ExpressionPair] | None = None  # of expression form, None without "pairs"
    conversation: Conversation | None = None
    regions: Regions = field(default_factory=Regions)  # what the conversation's marks stand for
    tags: list[Any] | None = None  # None without the field
    proposals: np.ndarray | None = None  # [P, 4] xyxy in pixels, or [P, 5] with a score


def read_row(values: Any, where: str, num_classes: int | None = None) -> Row:
    """Read a parsed JSON object.

    Args:
        values: the object.
        where: "file:line", for messages.
        num_classes: labels of detection form must be below it; None does not check.

    Raises:
        DataError: a field is missing or malformed; it is named.
    """
    row = Fields(values, where)
    width = row.size("width") if "width" in row else None
    height = row.size("height") if "height" in row else None
    size = (height, width)
    caption, phrases, boxes = None, [], None
    if "grounding" in row:
        grounding = row.object("grounding")
        caption = grounding.text("caption")
        phrases = [_phrase(item, caption, size) for item in grounding.objects("regions")]
    if "detection" in row:
        items = row.object("detection").objects("instances")
        boxes = [_labelled_box(item, size, num_classes) for item in items]
    pairs = read_pairs(row) if "pairs" in row else None
    if pairs is not None and (caption is not None or boxes is not None):
        other = "detection" if caption is None else "grounding"
        raise row.fault("pairs", f"stands beside {other!r}, and a row has one form")
    regions = read_regions(row, size)
    return Row(
        where=where,
        filename=row.text("filename" if "filename" in row or "image" not in row else "image"),
        width=width,
        height=height,
        image_id=row.get("image_id") if "image_id" in row else None,
        caption=caption,
        phrases=phrases,
        boxes=boxes,
        pairs=pairs,
        conversation=read_conversation(row, len(regions)),
        regions=regions,
        tags=row.array("tags") if "tags" in row else None,
        proposals=_proposals(row) if "proposals" in row else None,
    )


def _proposals(row: Fields) -> np.ndarray:
    boxes = row.array("proposals")
    for number, box in enumerate(boxes):
        fits = isinstance(box, list) and len(box) in (4, 5) and len(box) == len(boxes[0])
        if not fits or not all(map(is_number, box)):
            raise row.fault(
                f"proposals[{number}]",
                f"must be [x1, y1, x2, y2], or with a score in every one of them, not {box!r}",
            )
    return np.asarray(boxes, np.float32).reshape(len(boxes), -1 if boxes else 4)


def _phrase(item: Fields, caption: str, size: tuple[int | None, int | None]) -> Phrase:
    boxes, spans = item.boxes("bbox"), item.spans("tokens_positive")
    masks: list[Mask | None] = [None] * len(boxes)
    if "segmentation" in item:
        if len(boxes) != 1:
            raise item.fault("segmentation", f"is one mask, but 'bbox' holds {len(boxes)} boxes")
        masks = [item.mask("segmentation", size)]
    if "phrase" in item:
        return Phrase(boxes, masks, item.strings("phrase"), spans)
    words = [caption[start:end] for start, end in spans]
    return Phrase(boxes, masks, words[0] if len(words) == 1 else words, spans)


def _labelled_box(
    item: Fields, size: tuple[int | None, int | None], num_classes: int | None
) -> LabelledBox:
    box, label = item.box("bbox"), item.get("label")
    if not is_index(label) or label < 0:
        raise item.fault("label", f"must be a whole number from 0, not {label!r}")
    if num_classes is not None and label >= num_classes:
        raise item.fault(
            "label", f"is {label}, but the label map has the labels 0..{num_classes - 1}"
        )
    category = item.text("category") if "category" in item else ""
    mask = item.mask("segmentation", size) if "segmentation" in item else None
    return LabelledBox(box, label, category, mask)


def read_regions(row: Fields, size: tuple[int | None, int | None]) -> Regions:
    """The regions that a conversation speaks of: a box, a mask, or both, each."""
    if "regions" not in row:
        return Regions()
    boxes, masks = [], []
    for item in row.objects("regions"):
        mask = item.mask("segmentation", size) if "segmentation" in item else None
        box = item.box("bbox") if mask is None or "bbox" in item else mask_box(mask)
        if box[2] <= box[0] or box[3] <= box[1]:
            raise item.fault("bbox", f"{box} has no area")
        boxes.append(box)
        masks.append(mask)
    array = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Regions(array, tuple(masks) if any(mask is not None for mask in masks) else None)


def read_conversation(row: Fields, regions: int) -> Conversation | None:
    """The turns of a row, None where it has none.

    After an optional system turn, human and gpt take turns; what gpt says is learned. Where no
    turn marks the image, it is put in front.

    Args:
        row: a row, or an image of a COCO file that carries `conversations`.
        regions: how many regions its marks may stand for.

    Raises:
        DataError: a turn is malformed or out of turn, or a mark stands for nothing.
    """
    if "conversations" not in row or not row.array("conversations"):
        return None
    turns: list[Turn] = []
    for item in row.objects("conversations"):
        text, speaker = item.text("value"), item.text("from")
        role = ROLES.get(speaker)
        if role is None:
            raise item.fault("from", f"is {speaker!r}, not one of {', '.join(ROLES)}")
        spoken = sum(turn.role != "system" for turn in turns)
        expected = "assistant" if spoken % 2 else "user"
        if role != expected and (role != "system" or turns):
            raise item.fault("from", f"is {speaker!r} where a turn of the {expected} must stand")
        turns.append(Turn(role, text, learned=role == "assistant"))
    if turns[-1].role != "assistant":
        raise row.fault("conversations", "must hold a human and a gpt turn; gpt's is missing")
    conversation = Conversation(tuple(turns))
    for slot in conversation.slots:
        number = regions if slot.kind == "region" else 1
        if slot.index >= number:
            raise row.fault(
                "conversations",
                f"has a mark for {slot.kind} {slot.index} (counted from 0), but the row has "
                f"{number} {slot.kind}(s)",
            )
    if (last := max(marked_regions(turns), default=-1)) >= regions:
        raise row.fault(
            "conversations",
            f"has the mask of region {last} (counted from 0), but the row has {regions} region(s)",
        )
    return with_image(conversation)
