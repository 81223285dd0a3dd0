"""Parse one row of grounding JSONL into what the training pipeline takes.

Structural faults (a missing field, a wrong type) raise :class:`DataError` with file, line and
field; boxes that cannot be learnt from are left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdet.datasets.captions import (
    remove_speculative_clauses,
    remove_speculative_clauses_upstream,
)
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.prompts.conversation import DESCRIBE_IMAGE, Conversation, ask_of_image

#: The user turn of every image caption where `use_uniform_prompt` is on.
UNIFORM_PROMPT = f"<image>\n{DESCRIBE_IMAGE}"

BOX_OUTSIDE = "box outside the image"
BOX_TINY = "box under 1 pixel"
CAPTION_EMPTY = "caption empty after cleaning"
ROW_CAUSES = (BOX_OUTSIDE, BOX_TINY, CAPTION_EMPTY)


class Fields:
    """A JSON object whose fields are checked when they are read.

    Args:
        values: the parsed object.
        where: "file:line" of its row.
        path: name of the object inside the row, e.g. "grounding.regions[3]"; empty for the row.
    """

    def __init__(self, values: Any, where: str, path: str = "") -> None:
        self.where = where
        self.path = path
        if not isinstance(values, dict):
            raise self.fault("", f"must be an object, not {type(values).__name__}")
        self._values: Mapping[str, Any] = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def fault(self, key: str, problem: str) -> DataError:
        """Make the error for a field."""
        name = ".".join(part for part in (self.path, key) if part)
        return DataError(f"{self.where}: field {name!r} {problem}.")

    def get(self, key: str) -> Any:
        """Any value that is there and not null."""
        if key not in self:
            raise self.fault(key, "is missing")
        return self._values[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.fault(key, f"must be a string, not {type(value).__name__}")
        return value

    def size(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fault(key, f"must be a positive whole number of pixels, not {value!r}")
        return value

    def array(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fault(key, f"must be a list, not {type(value).__name__}")
        return value

    def object(self, key: str) -> Fields:
        return Fields(self.get(key), self.where, f"{self.path}.{key}" if self.path else key)

    def objects(self, key: str) -> list[Fields]:
        path = f"{self.path}.{key}" if self.path else key
        return [Fields(v, self.where, f"{path}[{i}]") for i, v in enumerate(self.array(key))]

    def box(self, key: str) -> list[float]:
        """Four finite numbers x1, y1, x2, y2."""
        return self._checked_box(key, self.get(key))

    def boxes(self, key: str) -> list[list[float]]:
        """One box or a list of boxes."""
        value = self.array(key)
        if value and isinstance(value[0], list):
            return [self._checked_box(f"{key}[{i}]", box) for i, box in enumerate(value)]
        return [self._checked_box(key, value)]

    def _checked_box(self, key: str, box: Any) -> list[float]:
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise self.fault(key, f"must be four numbers [x1, y1, x2, y2], not {box!r}")
        return box

    def spans(self, key: str) -> list[list[int]]:
        """A list of [start, end) character positions."""
        spans = self.array(key)
        for span in spans:
            if not isinstance(span, list) or len(span) != 2 or not all(map(_is_index, span)):
                raise self.fault(key, f"must be a list of [start, end] positions, not {spans!r}")
        return spans


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class CaptionOptions:
    """Which text of a row supervises the description of the whole image.

    Attributes:
        uniform_prompt: ask every image the same (:data:`UNIFORM_PROMPT`), not what the row asks.
        clean: remove speculative clauses: True, False, or "upstream" for the original's way,
            which keeps a caption uncleaned where nothing would be left.
        short: answer with the sentences of the grounding caption that are no mere tags, where
            the row has tags; takes precedence over `clean`.
    """

    uniform_prompt: bool = True
    clean: bool | str = True
    short: bool = False


def read_image_caption(
    row: Fields, options: CaptionOptions, dropped: Ledger
) -> Conversation | None:
    """A row's first question and its answer, which is learned.

    Returns:
        None where the row has no conversation or nothing certain to say.

    Raises:
        DataError: the conversation is no list of a human and a gpt turn.
    """
    if "conversations" not in row or not row.array("conversations"):
        return None
    turns = row.objects("conversations")
    if len(turns) < 2:
        raise row.fault("conversations", "must hold a human and a gpt turn; it holds one turn")
    prompt, answer = (turn.text("value") for turn in turns[:2])
    if options.short and "tags" in row and "grounding" in row:
        answer = _short_caption(row.object("grounding").text("caption"), row.array("tags"))
    elif options.clean == "upstream":
        answer = remove_speculative_clauses_upstream(answer) or answer
    elif options.clean:
        answer = remove_speculative_clauses(answer)
    if not answer:
        dropped.note(CAPTION_EMPTY)
        return None
    return ask_of_image(answer, UNIFORM_PROMPT if options.uniform_prompt else prompt)


def _short_caption(caption: str, tags: list[Any]) -> str:
    sentences = (sentence.strip() for sentence in caption.split("."))
    kept = [sentence for sentence in sentences if sentence and sentence not in tags]
    return ". ".join(kept) + "." if kept else ""


def read_grounding(
    row: Fields, width: int, height: int, dropped: Ledger
) -> tuple[str, list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Caption, boxes and phrases of a row in grounding form.

    Returns:
        The caption; instances dict(bbox, bbox_label, ignore_flag), the label being the number of
        the region; region number -> dict(phrase, tokens_positive) of the regions with a box.
    """
    grounding = row.object("grounding")
    instances: list[dict[str, Any]] = []
    phrases: dict[int, dict[str, Any]] = {}
    for number, region in enumerate(grounding.objects("regions")):
        boxes = [b for b in region.boxes("bbox") if _is_usable(b, width, height, dropped)]
        instances += [_instance(box, number) for box in boxes]
        if boxes:
            phrases[number] = {
                "phrase": _phrase(region),
                "tokens_positive": region.spans("tokens_positive"),
            }
    return grounding.text("caption"), instances, phrases


def _phrase(region: Fields) -> str | list[str]:
    phrase = region.get("phrase")
    alternatives = phrase if isinstance(phrase, list) and phrase else [phrase]
    if not all(isinstance(alternative, str) for alternative in alternatives):
        raise region.fault("phrase", f"must be a string or a list of strings, not {phrase!r}")
    return phrase


def read_detection(
    row: Fields, width: int, height: int, num_classes: int, dropped: Ledger
) -> list[dict[str, Any]]:
    """Boxes of a row in detection form; a row without "detection" is an image without objects.

    Returns:
        Instances dict(bbox, bbox_label, ignore_flag), labels as in the label map.
    """
    if "detection" not in row:
        return []
    instances = []
    for item in row.object("detection").objects("instances"):
        box, label = item.box("bbox"), item.get("label")
        if not _is_index(label) or not 0 <= label < num_classes:
            raise item.fault(
                "label", f"is {label!r}, but the label map has the labels 0..{num_classes - 1}"
            )
        if _is_usable(box, width, height, dropped):
            instances.append(_instance(box, label))
    return instances


def _instance(box: list[float], label: int) -> dict[str, Any]:
    return {"ignore_flag": 0, "bbox": box, "bbox_label": label}


def _is_usable(box: list[float], width: int, height: int, dropped: Ledger) -> bool:
    x1, y1, x2, y2 = box
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        dropped.note(BOX_OUTSIDE)
        return False
    if x2 - x1 < 1 or y2 - y1 < 1:
        dropped.note(BOX_TINY)
        return False
    return True
