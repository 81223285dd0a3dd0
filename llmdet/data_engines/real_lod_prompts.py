"""What Real-LOD's agent asks its four models.

Every prompt ends in labelled lines (``Expression: ...``), one for each thing that is known; a
trained planner needs those lines alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from llmdet.data_engines.real_lod_records import AgentSample, Located
from llmdet.errors import ConfigError

PLANNER = """\
You supervise the expressions that describe one object, or one group of objects, in a picture, \
which you cannot see. A reviewer has compared the expression with what is known of the object. \
Decide from the feedback what is to be done next, and answer with one JSON object:
{"reasoning": "...", "actions": [...]}
Each action is one of these:
{"tool_name": "VLM", "tool_parameters": {"question": "...", "image_editing": "object crop"}}
  shows a vision model the object alone: for its colour, material, parts, state, or what it is
{"tool_name": "VLM", "tool_parameters": {"question": "...", "image_editing": "extended object \
crop"}}
  shows it with what is around it: for what it does, and for what is beside it or touches it
{"tool_name": "VLM", "tool_parameters": {"question": "...", "image_editing": "object highlight"}}
  shows the whole picture with the object framed in red: for its place and its size among the \
others
{"tool_name": "LLM", "tool_parameters": {}}
  writes the expression anew from all that is known
Look first where something is not known, and rewrite what is known to be wrong. Where the \
expression is right there is nothing to do, and the list is empty."""

#: For a planner that has learned the task.
SHORT_PLANNER = "Plan:"

REFLECTOR = """\
Compare an expression with what is known of the object that it is meant for. Go through its kind, \
its attributes, its place, its relations to others and what it does. The expression is \
wrong where it contradicts what is known, uncertain where something in it is neither stated nor \
contradicted, and right where all of it is stated. Write
Feedback: what is wrong and what is not known, in one or two sentences
Conclusion: right, wrong or uncertain (one word)"""

REWRITER = """\
Write a new expression for an object in a picture, in the style and length of the present one. \
Keep what is right in it, replace what contradicts what is known, and leave out what nobody \
knows; add nothing that is not known. Boxes are left, top, width and height in parts of the \
picture. Write
Reasoning: one sentence
New expression: the expression alone"""

DESCRIBER = """\
You look at an object in a picture; where a red frame is in the picture, it marks the object, and \
more than one frame or picture show several objects that belong together. The expression may be \
wrong: trust what you see. Answer the question in one or two sentences, and say so where the \
picture does not show what is asked."""


@dataclass(frozen=True)
class AgentPrompts:
    """What stands above the labelled lines of each role.

    Raises:
        ConfigError: a prompt is no text.
    """

    planner: str = PLANNER
    reflector: str = REFLECTOR
    rewriter: str = REWRITER
    describer: str = DESCRIBER

    def __post_init__(self) -> None:
        for prompt in fields(self):
            value = getattr(self, prompt.name)
            if not isinstance(value, str):
                raise ConfigError(f"the prompt of the {prompt.name} is a text, not {value!r}")

    def plan(self, sample: AgentSample, expression: str, feedback: str) -> str:
        """What the planner is asked, who sees neither picture nor boxes."""
        lines = [("Category", sample.category), ("Expression", expression), ("Feedback", feedback)]
        return _prompt(self.planner, lines)

    def reflect(self, sample: AgentSample, expression: str, known: Sequence[str]) -> str:
        """What the reflector is asked."""
        return _prompt(
            self.reflector,
            [("Category", sample.category), *_known(sample, known), ("Expression", expression)],
        )

    def rewrite(self, sample: AgentSample, expression: str, known: Sequence[str]) -> str:
        """What the rewriter is asked."""
        lines = [
            *(("Object", _place(located, sample)) for located in sample.chosen),
            *(("Other object", _place(located, sample)) for located in sample.others),
            *_known(sample, known),
            ("Expression", expression),
        ]
        return _prompt(self.rewriter, lines)

    def describe(self, sample: AgentSample, expression: str, question: str) -> str:
        """What the describer is asked, who sees edited pictures."""
        lines = [("Category", sample.category), ("Expression", expression), ("Question", question)]
        return _prompt(self.describer, lines)


def answered(question: str, answer: str) -> str:
    """What is known after a question was answered."""
    return f"{question} - {answer}"


def _known(sample: AgentSample, known: Sequence[str]) -> Iterable[tuple[str, str]]:
    if sample.caption:
        yield "Description", sample.caption
    yield from (("Known", line) for line in known)


def _place(located: Located, sample: AgentSample) -> str:
    x1, y1, x2, y2 = located.box
    box = (x1 / sample.width, y1 / sample.height, (x2 - x1) / sample.width)
    numbers = ", ".join(f"{value:.2f}" for value in (*box, (y2 - y1) / sample.height))
    return f"{located.category} [{numbers}]"


def _prompt(instruction: str, lines: Iterable[tuple[str, str]]) -> str:
    """An instruction and its labelled lines; a line break in a value would begin a line of ours."""
    shown = [f"{label}: {' '.join(value.split())}" for label, value in lines]
    return "\n".join([instruction, "", *shown]) if instruction else "\n".join(shown)
