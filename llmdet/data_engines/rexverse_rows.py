"""What the Rexverse engine makes of its records: conversations by task, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llmdet.data_engines.drawing import generator_of
from llmdet.errors import ConfigError
from llmdet.prompts.object_questions import SEPARATOR, Wordings
from llmdet.prompts.objects import ObjectGrammar, object_mark
from llmdet.utils.suggest import did_you_mean

_GRAMMAR = ObjectGrammar()

Record = Mapping[str, Any]
#: A question and its answer.
Turn = tuple[str, str]


@dataclass(frozen=True)
class RexverseOutput:
    """How records are put into conversations; it does not decide what is asked of models.

    Attributes:
        wordings: task -> how it is asked, of ``configs/_base_/prompts/objects.py``.
        tasks: keys of :data:`TASKS`; a picture has a row of each, where it has something to say.
        turns: questions of a row, at most.
        seed: draws the wordings.

    Raises:
        ConfigError: there is no such task, or no wording for it.
    """

    wordings: Mapping[str, Wordings]
    tasks: Sequence[str] = field(default_factory=lambda: tuple(TASKS))
    turns: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise ConfigError(f"the task {task!r}: {did_you_mean(task, TASKS)}")
            if TASKS[task][0] not in self.wordings:
                raise ConfigError(f"the wordings have none for {TASKS[task][0]!r}")


def rows_of(record: Record, output: RexverseOutput) -> Iterator[dict[str, Any]]:
    """The rows of a picture, one for each task.

    No row has two tasks: what a name is asked for would stand in an answer before.

    Args:
        record: of a :class:`~llmdet.data_engines.rexverse.RexverseProgram`.
        output: which tasks, and how they are asked.
    """
    for task in output.tasks:
        wording, turns_of = TASKS[task]
        draw = generator_of(output.seed, task, record["filename"])
        turns = turns_of(record, output.wordings[wording], draw)[: output.turns]
        if not turns:
            continue
        turns[0] = (f"<image>\n{turns[0][0]}", turns[0][1])
        yield {
            "filename": record["filename"],
            "height": record["height"],
            "width": record["width"],
            "task": task,
            "caption": record["caption"],
            "regions": record["regions"],
            "conversations": [
                {"from": who, "value": text}
                for turn in turns
                for who, text in zip(("human", "gpt"), turn, strict=True)
            ],
        }


def _asked(wording: Wordings, about: str, draw: Random) -> str:
    """A question in a wording that is drawn."""
    return wording.ask(about, draw.randrange(len(wording.wordings)))


def _by(record: Record, words: str) -> dict[str, list[int]]:
    """Phrases or expressions, each with the regions that it is said of."""
    found: dict[str, list[int]] = {}
    for number, region in enumerate(record["regions"]):
        found.setdefault(region[words], []).append(number)
    return found


def _detect(record: Record, wording: Wordings, draw: Random) -> list[Turn]:
    """Where each named thing is, then all of them at once."""
    named = _by(record, "phrase")
    questions = [{phrase: indices} for phrase, indices in named.items()]
    questions += [named] if len(named) > 1 else []
    return [(_asked(wording, SEPARATOR.join(q), draw), _GRAMMAR.write(q)) for q in questions]


def _refer(record: Record, wording: Wordings, draw: Random) -> list[Turn]:
    said = _by(record, "expression")
    return [
        (_asked(wording, words, draw), _GRAMMAR.write({words: indices}))
        for words, indices in said.items()
    ]


def _say_of_each(words: str) -> Callable[[Record, Wordings, Random], list[Turn]]:
    """Questions about single regions, answered by what was said of them."""

    def turns(record: Record, wording: Wordings, draw: Random) -> list[Turn]:
        return [
            (
                _asked(wording, object_mark(number), draw),
                _GRAMMAR.write_phrase(region[words], [number]),
            )
            for number, region in enumerate(record["regions"])
        ]

    return turns


def _caption(record: Record, wording: Wordings, draw: Random) -> list[Turn]:
    """The caption with the regions of its phrases."""
    regions = _by(record, "phrase")
    pieces, end = [], 0
    for one in record["phrases"]:
        if one["phrase"] in regions:
            begin, stop = one["span"]
            pieces.append(record["caption"][end:begin])
            pieces.append(_GRAMMAR.write_phrase(one["phrase"], regions[one["phrase"]]))
            end = stop
    if not pieces:  # all boxes are of things that the caption does not name
        return []
    answer = "".join(pieces) + record["caption"][end:]
    return [(_asked(wording, "", draw), answer)]


def _converse(record: Record, wording: Wordings, draw: Random) -> list[Turn]:
    return [(_asked(wording, question, draw), said) for question, said in record["dialogue"]]


#: Task -> the wording of its questions, and what makes its turns.
TASKS: dict[str, tuple[str, Callable[[Record, Wordings, Random], list[Turn]]]] = {
    "detect": ("detect", _detect),
    "refer": ("detect", _refer),
    "name": ("name", _say_of_each("phrase")),
    "phrase": ("phrase", _say_of_each("expression")),
    "describe": ("describe", _say_of_each("description")),
    "caption": ("caption", _caption),
    "converse": ("converse", _converse),
}
