"""Pictures with their objects: what annotations of any format become before they are asked about.

Formats say the same picture once (COCO) or once for each sentence (RefCOCO). Here every picture
comes once, with each object once: boxes that are equal are one object.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import mask_problem
from llmdet.datasets.numbers import is_length
from llmdet.datasets.regions.settings import RegionSettings
from llmdet.datasets.row_targets import is_usable
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError
from llmdet.prompts.class_names import clean_class_name

NO_SIZE = "picture without width and height (--images gives them)"
NOT_ONE_OBJECT = "expression that does not mean exactly one object"
MARKED_TEXT = "text that holds a mark"
UNREAD_MASK = "mask that cannot be read, so that its box stands for it"
_MARKS = ("<image", "<region", "<mask", "<p>", "</p>", "[SEG]")
_MASK_FIELDS = ("sam_mask", "segmentation")  # GranD-f's Flickr30k, COCO
_SAME = 0.9  # IoU from which boxes of two files are one object
_DECIMALS = 2  # of boxes, in pixels


@dataclass(slots=True)
class RegionObject:
    """Something that a picture shows."""

    box: list[float]  # x1, y1, x2, y2 in pixels, inside the picture
    name: str | None = None  # its class
    texts: list[str] = field(default_factory=list)  # descriptions of it
    mask: Mask | None = None
    ignored: bool = False  # a crowd or a difficult object: nothing is asked of it


@dataclass(slots=True)
class PictureCaption:
    """A sentence about a picture, and which of its words stand for boxes."""

    text: str
    spans: list[list[int]]  # [start, end) of each phrase
    boxes: list[list[list[float]]]  # xyxy of each phrase


@dataclass(slots=True)
class Picture:
    """A picture and what it shows."""

    filename: str
    width: int
    height: int
    objects: list[RegionObject] = field(default_factory=list)
    identity: Any = None  # by which detections know it
    proposals: list[list[float]] = field(default_factory=list)  # xyxy, or with a score
    absent: list[str] = field(default_factory=list)  # what is said not to be there
    captions: list[PictureCaption] = field(default_factory=list)


def read_picture(
    sample: Sample, settings: RegionSettings, named: bool, ledger: Ledger
) -> Picture | None:
    """What a sample says of its picture, None where the size of the picture is not known.

    Args:
        sample: of any format.
        settings: say whether masks are kept, and what a sentence means.
        named: its phrases are names of classes, not descriptions.
        ledger: counts what cannot be asked about.
    """
    if not is_length(sample.width) or not is_length(sample.height):
        ledger.note(NO_SIZE, sample.where)
        return None
    picture = Picture(sample.filename, sample.width, sample.height)
    texts = None
    if settings.whole_expressions and not named:
        texts = [sample.caption or ""]
        if len(sample.instances) != 1:
            ledger.note(NOT_ONE_OBJECT, sample.where)
            texts = []
    for instance in sample.instances:
        if not is_usable(instance.bbox, (sample.width, sample.height), ledger):
            continue
        item = RegionObject(clip_box(instance.bbox, picture), ignored=instance.ignored)
        if not is_usable(item.box, (sample.width, sample.height), ledger):
            continue
        if named:
            item.name = clean_class_name(str(instance.phrase))
        else:
            said = phrases_of(instance) if texts is None else texts
            item.texts = [text for text in map(clean_text, said) if _sayable(text, sample, ledger)]
        if settings.masks:
            item.mask = _mask(instance, sample, ledger)
        picture.objects.append(item)
    return picture


def phrases_of(instance: Instance) -> list[str]:
    """Descriptions of an object: of several spans one text, else each wording."""
    phrase = instance.phrase
    if isinstance(phrase, str):
        return [phrase]
    return [" ".join(phrase)] if len(instance.spans or ()) > 1 else phrase


def clean_text(text: str) -> str:
    """A description that fits into a question: one line, no full stop, no double quotes."""
    return " ".join(text.split()).strip(" .").replace('"', "'")


def has_mark(text: str) -> bool:
    """Whether words hold what rows or models write in the place of features and masks."""
    return any(mark in text for mark in _MARKS)


def annotated_mask(instance: Instance) -> Mask | None:
    """The mask of an object in whatever field its format has it, not checked."""
    if instance.mask is not None:
        return instance.mask
    return next((instance.extra[key] for key in _MASK_FIELDS if instance.extra.get(key)), None)


def _sayable(text: str, sample: Sample, ledger: Ledger) -> bool:
    if has_mark(text):
        ledger.note(MARKED_TEXT, sample.where)
        return False
    return bool(text)


def clip_box(box: list[float], picture: Picture) -> list[float]:
    x1, y1, x2, y2 = box
    clipped = max(x1, 0), max(y1, 0), min(x2, picture.width), min(y2, picture.height)
    return [round(value, _DECIMALS) for value in clipped]


def _mask(instance: Instance, sample: Sample, ledger: Ledger) -> Mask | None:
    mask = annotated_mask(instance)
    if mask and mask_problem(mask, (sample.height, sample.width)) is None:
        return mask
    if mask is not None:
        ledger.note(UNREAD_MASK, sample.where)
    return None


class PictureStore:
    """Pictures in a temporary file (``TMPDIR`` says where), in the order in which they were met.

    What is added of a picture at different times is put together when it is read; a few dozen bytes
    a picture are held in memory.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed with this object
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._places: dict[str, list[tuple[int, int]]] = {}  # name -> start, length

    def __contains__(self, filename: str) -> bool:
        return filename in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, picture: Picture) -> None:
        """Add what is known of a picture."""
        content = orjson.dumps(picture)
        self._file.seek(self._end)
        self._file.write(content)
        self._places.setdefault(picture.filename, []).append((self._end, len(content)))
        self._end += len(content)

    def __iter__(self) -> Iterator[Picture]:
        """Every picture, whole.

        Raises:
            DataError: parts of a picture say different sizes.
        """
        for places in self._places.values():
            yield _joined([self._read(*place) for place in places])

    def _read(self, start: int, length: int) -> Picture:
        self._file.seek(start)
        values: dict[str, Any] = orjson.loads(self._file.read(length))
        objects = [RegionObject(**item) for item in values.pop("objects")]
        captions = [PictureCaption(**item) for item in values.pop("captions")]
        return Picture(**values, objects=objects, captions=captions)


def _joined(parts: list[Picture]) -> Picture:
    picture = parts[0]
    for part in parts[1:]:
        if (part.width, part.height) != (picture.width, picture.height):
            raise DataError(
                f"{picture.filename} is {picture.width}x{picture.height} in one place and "
                f"{part.width}x{part.height} in another; the files are not about the same pictures"
            )
        picture.identity = part.identity if picture.identity is None else picture.identity
        picture.proposals += [box for box in part.proposals if box not in picture.proposals]
        picture.absent += [text for text in part.absent if text not in picture.absent]
        picture.captions += part.captions
    known: dict[tuple[Any, ...], RegionObject] = {}
    for item in (item for part in parts for item in part.objects):
        found = known.setdefault((*item.box, item.name, item.ignored), item)
        if found is not item:
            found.texts += [text for text in item.texts if text not in found.texts]
            found.mask = found.mask or item.mask
    picture.objects = _named_by_others(list(known.values()))
    return picture


def _named_by_others(objects: list[RegionObject]) -> list[RegionObject]:
    """Objects without a class take that of an object of nearly the same box, which they replace."""
    unnamed = [item for item in objects if item.name is None]
    named = [item for item in objects if item.name is not None]
    for item in unnamed:
        candidates = [other for other in named if not other.ignored]
        ious = overlaps(item.box, candidates)
        if len(ious) and ious.max() >= _SAME:
            other = candidates[int(ious.argmax())]
            item.name, item.mask = other.name, item.mask or other.mask
            named.remove(other)
    return unnamed + named


def overlaps(box: list[float], others: Iterable[RegionObject]) -> np.ndarray:
    """[n] IoU of a box with those of n objects."""
    boxes = np.array([other.box for other in others], np.float64).reshape(-1, 4)
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)
