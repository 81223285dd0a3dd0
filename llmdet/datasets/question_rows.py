"""Rows of conversations (docs/data.md) as questions with a known answer, for evaluation.

Imports nothing of a model: ``tools/evaluate.py`` reads the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmdet.datasets.rows import Row, read_row
from llmdet.errors import DataError
from llmdet.prompts.conversation import Conversation, Turn, with_image, with_numbers
from llmdet.utils.files import read_jsonl


@dataclass(frozen=True)
class RowQuestion:
    """One turn of the assistant in a row, as a question."""

    id: int  # its number in the file, from 0: what predictions call image_id
    row: Row
    conversation: Conversation  # ends with the question
    answer: str
    task: str | None = None  # what the row says that it asks, where it does


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
        plain = [Turn(turn.role, text) for turn, text in zip(turns, texts, strict=True)]
        for place, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            asked = [t for t in plain[:place] if history or t.role == "system"]
            if not history:
                asked.append(plain[place - 1])
            opened = with_image(Conversation(tuple(asked)))
            yield RowQuestion(number, row, opened, turn.text, values.get("task"))
            number += 1
    if not number:
        raise DataError(f"{path}: there is no conversation to ask a question of")
