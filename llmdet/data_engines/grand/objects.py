"""Level 1 of GranD: the place, objects with masks and attributes, and how far away they are."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.chat import ask
from llmdet.data_engines.annotations import crop
from llmdet.data_engines.caption_rules import accepted_phrase
from llmdet.data_engines.detections import Search, apart
from llmdet.data_engines.flow import Call, Steps
from llmdet.data_engines.grand.grounding import Candidate, Group, group
from llmdet.data_engines.grand.models import BoxesIn
from llmdet.data_engines.grand.prompts import (
    ATTRIBUTES,
    LANDMARK,
    TAGS,
    accepted_landmark,
    accepted_tags,
)
from llmdet.data_engines.grand.settings import (
    BOXES,
    CAPTIONER,
    DEPTH,
    DESCRIBER,
    MASKS,
    ObjectSettings,
)
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.questions import Question, accepted_replies, left_out
from llmdet.datasets.pictures import read_picture
from llmdet.errors import DataError, naming

NO_NAMES = "picture in which nothing was looked for"
UNFINDABLE = "picture whose boxes are not known"
TOO_SMALL, EMPTY_MASK = "object too small", "object with an empty mask"
NOTHING_FOUND = "picture without an object"
#: Around a close-up, as a part of its sides.
_MARGIN = 0.1
_MOST_ATTRIBUTE_WORDS = 14

Record = dict[str, Any]
_Notes = list[tuple[str, str]]


def box_roles(detectors: int) -> tuple[str, ...]:
    """The roles of several detectors; the first of them also looks for phrases of captions."""
    return (BOXES, *(f"{BOXES} {number}" for number in range(2, detectors + 1)))


@dataclass(frozen=True)
class ObjectProgram:
    """Turns the name of a picture into a record with its objects.

    Attributes:
        folder: of the pictures.
        settings: what to look for.
        detectors: how many there are.
        masks: whether boxes get masks.
        depth: whether objects get a depth.
    """

    folder: Path
    settings: ObjectSettings
    detectors: int = 1
    masks: bool = True
    depth: bool = True

    def __call__(self, filename: str) -> Steps:
        """Ask what there is, find it, look at each object."""
        with naming(filename):
            image = read_picture(self.folder / filename)
        notes: _Notes = []
        names, landmark = yield from self._names(filename, image, notes)
        if not names:
            return Outcome(None, notes=(*notes, (NO_NAMES, filename)))
        candidates = yield from self._find(filename, image, names, notes)
        candidates = yield from self._with_masks(filename, image, candidates, notes)
        groups = group(candidates)[: self.settings.regions]
        if not groups:
            return Outcome(None, notes=(*notes, (NOTHING_FOUND, filename)))
        objects = [object_of(number, one) for number, one in enumerate(groups)]
        yield from self._describe(filename, image, objects, notes)
        yield from self._measure(image, objects)
        agreed = {n for n, one in enumerate(groups) if one.sources >= self.settings.agree}
        record = {
            "file_name": filename,
            "height": image.height,
            "width": image.width,
            "tags": names,
            "objects": [one for one in objects if one["id"] in agreed],
            "floating_objects": [one for one in objects if one["id"] not in agreed],
        }
        if landmark is not None:
            record["landmark"] = landmark
        return Outcome(record, notes=tuple(notes))

    def _names(
        self, filename: str, image: Image.Image, notes: _Notes
    ) -> Generator[Sequence[Call], list[Any], tuple[list[str], Any]]:
        """What is looked for, and the kind of place."""
        settings = self.settings
        questions = [Question(CAPTIONER, ask(LANDMARK, image), accepted_landmark, "landmark")]
        if settings.tags:
            read = partial(accepted_tags, most=settings.tags)
            questions.append(Question(CAPTIONER, ask(TAGS, image), read, "tags"))
        landmark, *tags = yield from accepted_replies(questions, settings.attempts)
        notes += left_out([landmark, *tags], filename)
        seen = [name for reply in tags for name in reply.value or ()]
        return list(dict.fromkeys([*settings.classes, *seen])), landmark.value

    def _find(
        self, filename: str, image: Image.Image, names: Sequence[str], notes: _Notes
    ) -> Generator[Sequence[Call], list[Any], list[Candidate]]:
        """Boxes of all detectors that are large enough."""
        search = Search(filename, image, tuple(names))
        answers = yield [Call(role, search) for role in box_roles(self.detectors)]
        candidates = []
        for source, found in enumerate(answers):
            if isinstance(found, DataError):
                notes.append((UNFINDABLE, f"{filename}: {found}"))
                continue
            best = apart(found, self.settings.overlap)
            large = [one for one in best if min(one.sides) >= self.settings.min_side]
            notes += [(TOO_SMALL, filename)] * (len(best) - len(large))
            candidates += [Candidate(source, one) for one in large]
        return candidates

    def _with_masks(
        self,
        filename: str,
        image: Image.Image,
        candidates: list[Candidate],
        notes: _Notes,
    ) -> Generator[Sequence[Call], list[Any], list[Candidate]]:
        if not self.masks or not candidates:
            return candidates
        boxes = tuple(one.found.bbox for one in candidates)
        (masks,) = yield [Call(MASKS, BoxesIn(image, boxes))]
        made = [
            Candidate(one.source, one.found, mask)
            for one, mask in zip(candidates, masks, strict=True)
            if area_of(mask)
        ]
        notes += [(EMPTY_MASK, filename)] * (len(candidates) - len(made))
        return made

    def _describe(
        self, filename: str, image: Image.Image, objects: list[Record], notes: _Notes
    ) -> Generator[Sequence[Call], list[Any], None]:
        read = partial(accepted_phrase, max_words=_MOST_ATTRIBUTE_WORDS)
        questions = []
        for one in objects:
            close_up = crop(image, one["bbox"], _MARGIN) or image
            request = ask(ATTRIBUTES.format(label=one["label"]), close_up)
            questions.append(Question(DESCRIBER, request, read, "attributes"))
        replies = yield from accepted_replies(questions, self.settings.attempts)
        notes += left_out(replies, filename)
        for one, reply in zip(objects, replies, strict=True):
            one["attributes"] = [] if reply.fault else [reply.value]

    def _measure(
        self, image: Image.Image, objects: list[Record]
    ) -> Generator[Sequence[Call], list[Any], None]:
        if not self.depth:
            return
        boxes = tuple(one["bbox"] for one in objects)
        (depths,) = yield [Call(DEPTH, BoxesIn(image, boxes))]
        for one, depth in zip(objects, depths, strict=True):
            one["depth"] = depth


def object_of(number: int, found: Group) -> Record:
    """An object as GranD writes it; boxes are xyxy in pixels."""
    scores = found.scores()
    best = found.members[0]
    record = {
        "id": number,
        "bbox": best.found.bbox,
        "labels": list(scores),
        "label": best.found.phrase,
        "score": list(scores.values()),
        "sources": sorted({member.source for member in found.members}),
    }
    if best.mask is not None:
        record |= {"segmentation": best.mask, "segmentation_source": MASKS}
    return record


def area_of(mask: Mapping[str, Any]) -> int:
    """Pixels of an encoded mask."""
    from pycocotools import mask as coco_mask

    return int(coco_mask.area(dict(mask)))
