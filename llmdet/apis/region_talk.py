"""A conversation about one picture and its regions, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llmdet.apis.captions import check_inside
from llmdet.apis.reading import any_boxes
from llmdet.apis.results import Picture
from llmdet.datasets.masks import decode_mask, encode_mask, mask_box, mask_problem
from llmdet.datasets.pictures import open_picture
from llmdet.datasets.sample import Mask, Regions
from llmdet.errors import DataError
from llmdet.models.outputs.mask import MaskAnswer
from llmdet.models.outputs.several import part_of
from llmdet.prompts.conversation import Conversation, Turn, with_numbers
from llmdet.prompts.objects import ObjectAnswer
from llmdet.utils.files import read_json


@dataclass(frozen=True)
class SaidMask:
    """A mask that an answer has."""

    phrase: str  # the words that it belongs to, "" where there are none
    mask: Mapping[str, Any]  # COCO's run-length encoding, of the picture's size
    score: float  # the probability of the token that stands for it


@dataclass(frozen=True)
class _Shown:
    """What a picture shows of a conversation."""

    name: str
    key: str  # what has the same key has the same colour
    box: Sequence[float] | None  # xyxy in pixels
    mask: Mask | None


@dataclass(eq=False)
class RegionTalk:
    """Questions about one picture; later ones see what was said before.

    Made by :meth:`~llmdet.apis.region_chat.RegionChat.talk`. ``<region>`` without a number goes on
    counting from turn to turn: ``<region:0>`` speaks of the first region again.
    """

    picture: Picture
    regions: Regions  # in pixels of the picture
    say: Callable[..., Any]  # of a conversation and options of ``generate``
    turns: list[tuple[str, str]] = field(default_factory=list)  # questions and their answers
    answers: dict[int, Any] = field(default_factory=dict)  # of a turn, what the output read of it

    def ask(self, question: str, **generation: Any) -> str:
        """The answer to a question.

        Args:
            question: with a mark for each region that is meant.
            generation: options of transformers' ``generate``; greedy by default.

        Raises:
            DataError: the question marks a region that there is not.
        """
        turns: list[Turn] = []
        for asked, said in self.turns:
            turns += [Turn("user", asked), Turn("assistant", said)]
        conversation = Conversation((*turns, Turn("user", question)))
        check_marks(conversation, len(self.regions))
        answer = self.say(conversation, **generation)
        self.answers[len(self.turns)] = answer
        self.turns.append((question, str(answer)))
        return str(answer)

    @property
    def masks(self) -> list[SaidMask]:
        """All that was answered, in order; one without words has those of the object it is."""
        found = []
        for answer in self.answers.values():
            said, named = part_of(answer, MaskAnswer), part_of(answer, ObjectAnswer)
            if said is not None:
                objects = named.phrases if named is not None else ()
                name = objects[0].phrase if len(objects) == len(said.masks) == 1 else ""
                found += [
                    SaidMask(phrase or name, mask, score)
                    for phrase, mask, score in zip(
                        said.said.phrases, said.masks, said.scores, strict=True
                    )
                ]
        return found

    @property
    def named(self) -> dict[int, str]:
        """Regions that answers named by their index, and what they were called last."""
        answers = [part_of(answer, ObjectAnswer) for answer in self.answers.values()]
        return {
            index: phrase.phrase
            for answer in answers
            if answer is not None
            for phrase in answer.phrases
            for index in phrase.indices
        }

    def to_row(self) -> dict[str, Any]:
        """The conversation as a row of docs/data.md, ready for JSON.

        Masks of answers are regions behind those that were given, ``<mask:n>`` names them.
        """
        pairs = [("human", "gpt")[n % 2] for n in range(2 * len(self.turns))]
        texts = self._texts_of_row()
        source = self.picture.source
        return {
            "filename": None if isinstance(source, np.ndarray) else str(source),
            "height": self.picture.height,
            "width": self.picture.width,
            "regions": [
                *(self._region(number) for number in range(len(self.regions))),
                *(_region_of(said.mask) for said in self.masks),
            ],
            "conversations": [
                {"from": who, "value": text} for who, text in zip(pairs, texts, strict=True)
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_row` where the path ends in .json, else the picture of :meth:`plot`.

        Raises:
            DataError: the file cannot be written.
        """
        from llmdet.visualization.pictures import save_picture

        path = Path(path)
        if path.suffix.lower() != ".json":
            save_picture(np.asarray(self.plot()), path)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.to_row()) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"The conversation {path} cannot be written: {error}.") from error

    def plot(self, palette: Any = "none") -> Image.Image:
        """The picture with its regions, named as they are marked; what was said stands below.

        Args:
            palette: colours, see :func:`llmdet.visualization.palette.detection_colors`.
        """
        from llmdet.visualization.drawing import draw_detections, tint_masks
        from llmdet.visualization.palette import detection_colors

        shown = self._shown()
        keys = [each.key for each in shown]
        labels = [sorted(set(keys)).index(key) for key in keys]
        colors = detection_colors(keys, labels, palette, keys)
        size = self.picture.height, self.picture.width
        pairs = list(zip(shown, colors, strict=True))
        masks = [decode_mask(each.mask, size) for each in shown if each.mask is not None]
        tints = [color for each, color in pairs if each.mask is not None]
        pixels = tint_masks(self.picture.pixels(), masks, tints)
        boxed = [n for n, each in enumerate(shown) if each.box is not None]
        drawn = draw_detections(
            pixels,
            np.array([shown[n].box for n in boxed], np.float32).reshape(-1, 4),
            range(len(boxed)),
            [shown[n].name for n in boxed],
            None,
            [colors[n] for n in boxed] or palette,
            description=" ".join(with_numbers([text for turn in self.turns for text in turn])),
        )
        return Image.fromarray(drawn.picture)

    def _shown(self) -> list[_Shown]:
        """Regions and masks of answers; what was said of one thing has one colour."""
        names, given = self.named, self.regions.masks
        shown = []
        for number, box in enumerate(self.regions.boxes.tolist()):
            name = f"region {number}"
            called = f"{name}: {names[number]}" if number in names else name
            mask = None if given is None else given[number]
            shown.append(_Shown(called, names.get(number, name), box, mask))
        for number, said in enumerate(self.masks):
            name = said.phrase or f"mask {number}"
            is_empty = not _area(said.mask)
            # A mask of what a region was called lies in its box, which is named already.
            box = None if is_empty or name in names.values() else mask_box(said.mask)
            shown.append(_Shown(name, name, box, said.mask))
        return shown

    def _texts_of_row(self) -> list[str]:
        """Questions and answers; tokens of masks are marks of the regions that they are."""
        texts, following = [], len(self.regions)
        for number, (question, answer) in enumerate(self.turns):
            said = part_of(self.answers.get(number), MaskAnswer)
            texts += [question, answer if said is None else said.said.as_row(following)]
            following += 0 if said is None else len(said.masks)
        return texts

    def _region(self, number: int) -> dict[str, Any]:
        region: dict[str, Any] = {"bbox": self.regions.boxes[number].tolist()}
        mask = None if self.regions.masks is None else self.regions.masks[number]
        return region if mask is None else region | {"segmentation": mask}


def _region_of(mask: Mapping[str, Any]) -> dict[str, Any]:
    box = {"bbox": mask_box(mask)} if _area(mask) else {}
    return {**box, "segmentation": mask}


def _area(mask: Mapping[str, Any]) -> int:
    return int(decode_mask(mask, tuple(mask["size"])).sum())


def check_marks(conversation: Conversation, regions: int) -> None:
    """Refuse marks of regions that there are not.

    Raises:
        DataError: names the first of them and the question.
    """
    for slot in conversation.slots:
        if slot.kind == "region" and slot.index >= regions:
            raise DataError(
                f"The question {conversation.turns[-1].text!r} marks region {slot.index}, counted "
                f"from 0, and {regions} are given: give more boxes or masks; <region> stands for "
                "the next region, <region:0> for the first one again."
            )


def read_regions(boxes: Any, masks: Sequence[Any] | None, picture: Picture) -> Regions:
    """Regions from boxes, masks or both, checked against their picture.

    Args:
        boxes: [N, 4] xyxy in pixels, or a list in which None is a box that is around its mask.
        masks: N of them, or None: arrays [h, w], COCO's encodings or polygons, and None for a
            region that has none. Without boxes, each is around its mask.
        picture: that they lie in.

    Raises:
        ConfigError: the boxes are no boxes.
        DataError: a box lies outside the picture, a mask is none of it, or a region has neither.
    """
    if masks is None:
        given = any_boxes(boxes)
        check_inside(given, picture)
        return Regions(given)
    sides = list(boxes) or [None] * len(masks)
    if len(sides) != len(masks):
        raise DataError(f"{len(sides)} boxes and {len(masks)} masks do not belong together.")
    size = picture.height, picture.width
    encoded = [_encoded(mask, number, size) for number, mask in enumerate(masks)]
    around = []
    for number, (box, mask) in enumerate(zip(sides, encoded, strict=True)):
        if box is None and mask is None:
            raise DataError(f"Region {number} has neither a box nor a mask.")
        around.append(mask_box(mask) if box is None and mask is not None else box)
    array = any_boxes(around)
    check_inside(array, picture)
    return Regions(array, tuple(encoded))


def _encoded(mask: Any, number: int, size: tuple[int, int]) -> Mask | None:
    if mask is None:
        return None
    if isinstance(mask, np.ndarray):
        mask = _encode(mask, number)
    elif isinstance(mask, Mapping) and isinstance(mask.get("counts"), bytes):
        mask = {**mask, "counts": mask["counts"].decode()}
    if isinstance(mask, Mapping) and "size" in mask:
        mask = {**mask, "size": list(mask["size"])}
    problem = mask_problem(mask, size)
    if problem:
        raise DataError(f"Mask {number} of {size[1]} x {size[0]} pixels {problem}.")
    return mask


def _encode(mask: np.ndarray, number: int) -> dict[str, Any]:
    if mask.ndim != 2 or not mask.any():
        raise DataError(
            f"Mask {number} of shape {list(mask.shape)} is no [h, w] array, or is empty."
        )
    return encode_mask(mask.astype(bool))


def read_mask_file(path: str | Path) -> list[Any]:
    """The masks of a file.

    Args:
        path: a picture that is black, or transparent, outside the region; or JSON with one mask
            or a list of them: COCO's encodings or polygons.

    Returns:
        Masks as :func:`read_regions` takes them.

    Raises:
        DataError: the file cannot be read.
    """
    if Path(path).suffix.lower() == ".json":
        value = read_json(path)
        several = isinstance(value, list) and not (value and _is_polygon(value[0]))
        return value if several else [value]
    with open_picture(path) as picture:
        bands = np.asarray(picture)
        has_alpha = picture.mode.endswith("A")
    if bands.ndim == 2:
        return [bands != 0]
    return [bands[..., -1] != 0 if has_alpha else (bands != 0).any(axis=2)]


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and not isinstance(value[0], (list, dict))
