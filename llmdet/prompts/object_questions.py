"""How models that name candidate objects are asked; all wordings are configs/_base_/prompts.

The two that tests ask are those of ChatRex and RexSeek (arXiv 2411.18363, 2503.08507).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmdet.errors import ConfigError
from llmdet.prompts.objects import object_mark

#: In a wording: what is asked for. Names with :data:`SEPARATOR` between them, or marks.
ASKED = "[OBJ]"
SEPARATOR = "; "
DETECT = "Please detect [OBJ] in this image. Answer the question with object indexes."
NAME = (
    "What is the category name of [OBJ]? Answer the question with its category name in free format."
)
_OBJECT = re.compile(r"<obj([0-9]{1,9})>")
_RUN = re.compile(r"(?:<obj[0-9]{1,9}>){2,}")


@dataclass(frozen=True)
class Wordings:
    """How a task is asked; [OBJ] stands for what is asked for."""

    wordings: Sequence[str]
    form: str  # of the answer, said behind the question

    def __post_init__(self) -> None:
        if not self.wordings:
            raise ConfigError("a task needs at least one wording")

    def ask(self, asked: str, wording: int = 0) -> str:
        """The question in one of the wordings."""
        return f"{self.wordings[wording]} {self.form}".replace(ASKED, asked)


def count_answer(count: int, named: str) -> str:
    """How many there are, and which."""
    return f"The number is {count}: {named}"


def objects_in(text: str) -> list[int]:
    """The numbers of objects in a text, in its order."""
    return [int(number) for number in _OBJECT.findall(text)]


def renumber_objects(text: str, place: Mapping[int, int]) -> str:
    """The text with other numbers for its objects; lists of objects are put in order."""
    said = _OBJECT.sub(lambda found: object_mark(place[int(found[1])]), text)
    return _RUN.sub(lambda run: "".join(map(object_mark, sorted(objects_in(run[0])))), said)
