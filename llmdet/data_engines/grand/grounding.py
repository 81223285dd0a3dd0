"""Which boxes are one object, and which objects a phrase names."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from llmdet.data_engines.detections import Found, Search
from llmdet.data_engines.flow import Call
from llmdet.data_engines.grand.settings import BOXES
from llmdet.data_engines.object_words import Phrase, distinct, phrases_of, stems
from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_iou
from llmdet.prompts.closed_words import PLURALS_WITHOUT_S

#: What boxes and masks of one object have in common at least (GLaMM's engine): a Dice of 0.75
#: is an IoU of 0.6.
SAME_BOX, SAME_MASK = 0.65, 0.6
_SHARED_WORDS = 0.75  # of a phrase's words with those of an object
_MOST_PHRASES = 40  # of a text that a detector looks for

Record = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A box of one of several detectors."""

    source: int
    found: Found
    mask: Mapping[str, Any] | None = None  # encoded


@dataclass
class Group:
    """Boxes of one object, the best first."""

    members: list[Candidate] = field(default_factory=list)

    @property
    def sources(self) -> int:
        """How many detectors have found it."""
        return len({member.source for member in self.members})

    def scores(self) -> dict[str, float]:
        """What it is called, with the best score of each name, the best first."""
        found: dict[str, float] = {}
        for member in self.members:
            found.setdefault(member.found.phrase, member.found.score)
        return found


def group(candidates: Sequence[Candidate]) -> list[Group]:
    """Boxes of one object together: each joins the first group whose best box it is like.

    Args:
        candidates: of all detectors; all have masks, or none.
    """
    ordered = sorted(candidates, key=lambda one: -one.found.score)
    boxes = np.array([one.found.bbox for one in ordered], np.float64).reshape(-1, 4)
    same = pairwise_iou(boxes, boxes) >= SAME_BOX
    masks = [one.mask for one in ordered if one.mask is not None]
    if masks and len(masks) == len(ordered):
        same &= _mask_iou(masks) >= SAME_MASK
    groups: dict[int, Group] = {}
    for number, one in enumerate(ordered):
        first = next((begun for begun in groups if same[begun, number]), number)
        groups.setdefault(first, Group()).members.append(one)
    return list(groups.values())


def _mask_iou(masks: Sequence[Mapping[str, Any]]) -> np.ndarray:
    from pycocotools import mask as coco_mask

    return np.asarray(coco_mask.iou(list(masks), list(masks), [0] * len(masks)))


@dataclass(frozen=True)
class Support:
    """What a phrase names: known objects, or else a box that was found for it."""

    ids: tuple[int, ...] = ()
    bbox: tuple[float, float, float, float] | None = None  # around all of it

    def __bool__(self) -> bool:
        return self.bbox is not None


def named_by_words(phrase: str, objects: Sequence[Record], by_noun: bool = True) -> list[Record]:
    """The objects whose words a phrase has.

    Those with this very label; else those whose label and attributes share most of its words; else
    those whose label ends as it does. Of several a phrase in the singular names the one with the
    best score.

    Args:
        phrase: of a text.
        objects: of a record.
        by_noun: whether the last of these will do: "blue car" then names a red car.
    """
    wanted = stems(phrase)
    if not wanted:
        return []

    def share(one: Record) -> float:
        known = {word for text in _texts(one) for word in stems(text)}
        return sum(word in known for word in wanted) / len(wanted)

    tests = (
        lambda one: any(stems(label) == wanted for label in one["labels"]),
        lambda one: share(one) >= _SHARED_WORDS,
        lambda one: any(stems(label)[-1:] == wanted[-1:] for label in one["labels"]),
    )
    allowed = tests if by_noun else tests[:2]
    found = next(filter(None, ([one for one in objects if test(one)] for test in allowed)), [])
    if len(found) > 1 and not is_plural(phrase):
        return [max(found, key=lambda one: (share(one), max(one["score"])))]
    return found


def _texts(item: Record) -> list[str]:
    return [*item["labels"], *item.get("attributes", ())]


def is_plural(phrase: str) -> bool:
    """Whether a phrase may name several things."""
    last = phrase.lower().split()[-1:]
    return any(word.endswith("s") or word in PLURALS_WITHOUT_S for word in last)


def objects_at(found: Sequence[Found], objects: Sequence[Record], overlap: float) -> list[Record]:
    """The objects that lie where something was found."""
    if not found or not objects:
        return []
    theirs = np.array([one.bbox for one in found], np.float64)
    ours = np.array([one["bbox"] for one in objects], np.float64)
    hit = np.flatnonzero((pairwise_iou(theirs, ours) >= overlap).any(0))
    return [objects[number] for number in hit.tolist()]


def around(boxes: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box around boxes, xyxy."""
    array = np.array(boxes, np.float64)
    x1, y1 = array[:, :2].min(0).tolist()
    x2, y2 = array[:, 2:].max(0).tolist()
    return x1, y1, x2, y2


class Grounder:
    """Finds what phrases of texts about a picture name; looks for each phrase once.

    Args:
        record: of the picture, with its objects.
        image: the picture.
        overlap: IoU from which on what is found for a phrase is an object.
        by_noun: of :func:`named_by_words`, for what the detector does not find.
    """

    def __init__(
        self, record: Record, image: Image.Image, overlap: float, by_noun: bool = True
    ) -> None:
        self.record, self.image, self.overlap = record, image, overlap
        self.by_noun = by_noun
        self.objects: list[Record] = [*record["objects"], *record["floating_objects"]]
        self.known: dict[str, Support] = {}

    def look(self, phrases: Sequence[Phrase]) -> Generator[Sequence[Call], list[Any], None]:
        """Have the detector look for phrases that are new; a part of a program."""
        new = [one.text for one in distinct(phrases, _MOST_PHRASES)]
        new = [text for text in new if text.casefold() not in self.known]
        if not new:
            return
        (found,) = yield [Call(BOXES, Search(self.record["file_name"], self.image, tuple(new)))]
        for text in new:
            boxes = [] if isinstance(found, DataError) else [o for o in found if o.phrase == text]
            self.known[text.casefold()] = self._support(text, boxes)

    def _support(self, phrase: str, found: Sequence[Found]) -> Support:
        there = objects_at(found, self.objects, self.overlap)
        there = there or named_by_words(phrase, self.objects, self.by_noun)
        if there:
            return Support(
                tuple(one["id"] for one in there), around([one["bbox"] for one in there])
            )
        return Support((), around([one.bbox for one in found])) if found else Support()

    def support(self, phrase: str) -> Support:
        """What a phrase names, as far as it was looked for."""
        return self.known.get(phrase.casefold(), Support())

    def details(self, text: str) -> list[Record]:
        """The phrases of a text that name something, as GranD writes them."""
        details = []
        for phrase in phrases_of(text):
            if support := self.support(phrase.text):
                details.append(
                    {
                        "phrase": phrase.text,
                        "tokens_positive": list(phrase.span),
                        "ids": list(support.ids),
                        "bbox": list(support.bbox or ()),
                    }
                )
        return details
