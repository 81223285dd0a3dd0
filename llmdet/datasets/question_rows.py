"""Rows of conversations (docs/data.md) as questions with a known answer, for evaluation.

Imports nothing of a model: ``tools/evaluate.py`` reads the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llmdet.datasets.rows import Row, read_row
from llmdet.datasets.sample import Regions
from llmdet.errors import DataError
from llmdet.prompts.conversation import Conversation, Turn, with_image, with_numbers
from llmdet.prompts.masks import masks_of_turns
from llmdet.utils.files import read_jsonl


@dataclass(frozen=True)
class RowQuestion:
    """One turn of the assistant in a row, as a question."""

    id: int  # its number in the file, from 0: what predictions call image_id
    row: Row
    conversation: Conversation  # ends with the question
    answer: str
    task: str | None = None  # what the row says that it asks, where it does
    masks: tuple[int, ...] = ()  # regions of the row whose masks the answer shows

    @property
    def regions(self) -> Regions:
        """The regions that may be shown: those whose masks are asked for are not."""
        given = self.row.regions
        if not self.masks:
            return given
        slots = [slot for slot in self.conversation.slots if slot.kind == "region"]
        count = 1 + max((slot.index for slot in slots), default=-1)
        masks = None if given.masks is None else given.masks[:count]
        scores = None if given.scores is None else given.scores[:count]
        return replace(given, boxes=given.boxes[:count], masks=masks, scores=scores)


def read_questions(path: str | Path, *, history: bool = False) -> Iterator[RowQuestion]:
    """The questions of a JSONL file, row after row, turn after turn.

    Args:
        path: rows with conversations, and regions where they mark any.
        history: show what the row says before a question; else each one stands alone, after the
            system turn.

    Raises:
        DataError: a row is malformed, or the file has no question.
    """
    number = 0
    for line, values in read_jsonl(path):
        row = read_row(values, f"{path}:{line}")
        turns = () if row.conversation is None else row.conversation.turns
        texts = with_numbers([turn.text for turn in turns])
        of_turns = masks_of_turns(texts)
        # What was learned is written with the model's tokens where it shows masks.
        plain = [
            Turn(turn.role, text, learned=bool(masks) and turn.role == "assistant")
            for turn, text, masks in zip(turns, texts, of_turns, strict=True)
        ]
        for place, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            asked = [t for t in plain[:place] if history or t.role == "system"]
            if not history:
                asked.append(plain[place - 1])
            opened = with_image(Conversation(tuple(asked)))
            answer, masks = turn.text, of_turns[place]
            yield RowQuestion(number, row, opened, answer, values.get("task"), masks)
            number += 1
    if not number:
        raise DataError(f"{path}: there is no conversation to ask a question of")
