"""Real-LOD's agent: it looks at the expression of an object again, and mends it (arXiv 2503.23508).

A *reflector* compares the expression with all that is known of the object. A *planner*, who sees
its feedback and no picture, decides what is to be done: ask a *describer* who is shown the object
in one of three ways, or have a *rewriter* write the expression anew. What comes out is reflected
on again. :func:`refine` is a program of :mod:`llmdet.data_engines.flow` and knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.chat import ask
from llmdet.data_engines.flow import Call, Steps
from llmdet.data_engines.image_edits import ImageEdit, edited_pictures
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.questions import Question, RejectedAnswerError, accepted_replies
from llmdet.data_engines.real_lod_answers import (
    Action,
    Plan,
    Reflection,
    State,
    Tool,
    read_description,
    read_expression,
    read_plan,
    read_reflection,
)
from llmdet.data_engines.real_lod_prompts import AgentPrompts, answered
from llmdet.data_engines.real_lod_records import AgentSample, read_sample
from llmdet.datasets.pictures import picture_path, read_picture
from llmdet.errors import ConfigError, DataError, naming

ROLES = ("planner", "reflector", "rewriter", "describer")
#: Keys of a record that say what became of it.
REFINED, HISTORY, UNSOLVED = "refined_expression", "history", "unsolved"


@dataclass(frozen=True)
class AgentSettings:
    """How the agent works.

    Attributes:
        max_cycles: plans that are carried out; the last one is reflected on like the others.
        attempts: how often a model is asked until its answer can be used.
        planner_confirms: also ask the planner about an expression that the reflector finds right,
            as the paper does: it may find something left to do.
        prompts: what the models are asked.

    Raises:
        ConfigError: a number is below one or none, or a switch is neither on nor off.
    """

    max_cycles: int = 3
    attempts: int = 3
    planner_confirms: bool = False
    prompts: AgentPrompts = field(default_factory=AgentPrompts)

    def __post_init__(self) -> None:
        for name in ("max_cycles", "attempts"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} of the agent is {value!r}, not a number of 1 or more")
        if type(self.planner_confirms) is not bool:
            raise ConfigError(
                f"planner_confirms of the agent is {self.planner_confirms!r}, not True or False"
            )


def refine(record: dict[str, Any], where: str, images: Path, settings: AgentSettings) -> Steps:
    """The program of one record.

    Args:
        record: as :func:`llmdet.data_engines.real_lod_records.read_sample` takes it; it is not
            changed.
        where: its place, for messages.
        images: the folder of the pictures.
        settings: how to work.

    Returns:
        The record with ``refined_expression`` and ``history``, every answer in its order. Where
        no expression is found right: with ``unsolved``, the cause, and the last expression.
    """
    try:
        sample = read_sample(record, where)
        image = _picture(sample, images)
    except DataError as error:
        return Outcome(None, problem=str(error))
    case = _Case(sample, image, settings)
    try:
        yield from case.work()
    except _UnsolvedError as cause:
        row = {**record, REFINED: case.expression, HISTORY: case.history, UNSOLVED: str(cause)}
        notes = (*case.notes, (f"unsolved: {cause}", where))
        return Outcome(row, notes=notes, aside=True)
    row = {**record, REFINED: case.expression, HISTORY: case.history}
    return Outcome(row, notes=tuple(case.notes))


def _picture(sample: AgentSample, images: Path) -> Image.Image:
    path = picture_path(str(images), sample.image_path, sample.where)
    with naming(sample.where):
        image = read_picture(path)
        if image.size != (sample.width, sample.height):
            raise DataError(
                f"the picture {path} has {image.width} x {image.height} pixels, and not "
                f"{sample.width} x {sample.height}"
            )
        edited_pictures(image, [located.box for located in sample.chosen], ImageEdit.CROP)
    return image


class _UnsolvedError(Exception):
    """No expression was found right; the text is the cause, in the words of the ledger."""


class _Case:
    """One expression on its way."""

    def __init__(self, sample: AgentSample, image: Image.Image, settings: AgentSettings) -> None:
        self.sample, self.image, self.settings = sample, image, settings
        self.expression = sample.expression
        self.known: list[str] = []  # what the describer has answered
        self.cycle = 0
        self.history: list[dict[str, Any]] = []
        self.notes: list[tuple[str, str]] = []

    def work(self) -> Generator[list[Call], list[Any], None]:
        """Reflect, plan and act until the expression is right.

        Raises:
            _UnsolvedError: it is not, after the last cycle.
        """
        reflection = yield from self._reflect()
        for cycle in range(1, self.settings.max_cycles + 1):
            self.cycle = cycle
            is_right = reflection.state is State.RIGHT
            if is_right and not self.settings.planner_confirms:
                return
            plan = yield from self._plan(reflection)
            if not plan.actions:
                if is_right:
                    return
                raise _UnsolvedError(f"the planner stopped though {reflection.state.value}")
            yield from self._act(plan.actions)
            reflection = yield from self._reflect()
        if reflection.state is not State.RIGHT:
            raise _UnsolvedError(f"still {reflection.state.value} after the last cycle")

    def _reflect(self) -> Generator[list[Call], list[Any], Reflection]:
        prompt = self.settings.prompts.reflect(self.sample, self.expression, self.known)
        question = self._question("reflection", "reflector", prompt, read_reflection)
        [reflection] = yield from self._answers([question])
        return reflection

    def _plan(self, reflection: Reflection) -> Generator[list[Call], list[Any], Plan]:
        feedback = f"{reflection.feedback} The expression is {reflection.state.value}."
        prompt = self.settings.prompts.plan(self.sample, self.expression, feedback)
        question = self._question(
            "plan", "planner", prompt, read_plan, expression=self.expression, feedback=feedback
        )
        [plan] = yield from self._answers([question])
        return plan

    def _act(self, actions: Sequence[Action]) -> Generator[list[Call], list[Any], None]:
        """Carry out a plan; questions that follow one another are asked together."""
        asked: list[Action] = []
        for action in actions:
            if action.tool is Tool.DESCRIBE:
                asked.append(action)
                continue
            yield from self._describe(asked)
            asked = []
            yield from self._rewrite()
        yield from self._describe(asked)

    def _describe(self, actions: Sequence[Action]) -> Generator[list[Call], list[Any], None]:
        questions = []
        for action in actions:
            assert action.edit is not None
            pictures = self._pictures(action)
            prompt = self.settings.prompts.describe(self.sample, self.expression, action.question)
            question = self._question(
                "description",
                "describer",
                prompt,
                read_description,
                *pictures,
                question=action.question,
                image_editing=action.edit.value,
            )
            questions.append(question)
        if questions:
            answers = yield from self._answers(questions)
            for action, answer in zip(actions, answers, strict=True):
                self.known.append(answered(action.question, answer))

    def _pictures(self, action: Action) -> tuple[Image.Image, ...]:
        assert action.edit is not None
        boxes = [located.box for located in self.sample.chosen]
        return edited_pictures(self.image, boxes, action.edit)

    def _rewrite(self) -> Generator[list[Call], list[Any], None]:
        prompt = self.settings.prompts.rewrite(self.sample, self.expression, self.known)
        question = self._question("rewriting", "rewriter", prompt, read_expression)
        [self.expression] = yield from self._answers([question])

    def _question(
        self,
        stage: str,
        role: str,
        prompt: str,
        read: Callable[[str], Any],
        *pictures: Image.Image,
        **about: str,
    ) -> Question:
        """A question whose answers all enter the history with what it is about."""
        entry = {"cycle": self.cycle, "stage": stage, **about}

        def remember(answer: str) -> Any:
            self.history.append(entry | {"answer": answer})
            try:
                return read(answer)
            except RejectedAnswerError as error:
                self.history[-1]["rejected"] = str(error)
                self.notes.append((f"{stage} asked again: {error}", self.sample.where))
                raise

        return Question(role, ask(prompt, *pictures), remember, stage)

    def _answers(
        self, questions: Sequence[Question]
    ) -> Generator[list[Call], list[Any], list[Any]]:
        """What was read from the answers.

        Raises:
            _UnsolvedError: one of them could not be used in any attempt.
        """
        replies = yield from accepted_replies(questions, self.settings.attempts)
        for question, reply in zip(questions, replies, strict=True):
            if reply.fault:
                raise _UnsolvedError(f"no {question.kind} that can be used")
        return [reply.value for reply in replies]
