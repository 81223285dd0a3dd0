"""What Real-LOD's agent takes from answers: plans, reflections and new expressions.

Answers are parsed leniently, since models forget quotes and brackets, and validated strictly: an
answer that says anything else than it may is asked for again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llmdet.data_engines.image_edits import ImageEdit
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.errors import ConfigError

MAX_ACTIONS = 6
MAX_EXPRESSION_WORDS = 60


class Tool(str, Enum):
    """What an action calls; the value is its name in a plan."""

    REWRITE = "LLM"
    DESCRIBE = "VLM"


class State(str, Enum):
    """What a reflection says of an expression."""

    RIGHT = "right"
    WRONG = "wrong"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Action:
    """One step of a plan."""

    tool: Tool
    question: str = ""  # for DESCRIBE
    edit: ImageEdit | None = None  # for DESCRIBE


@dataclass(frozen=True)
class Plan:
    """What the agent wants to be done; no action means that the expression is right."""

    actions: tuple[Action, ...]
    reasoning: str = ""


@dataclass(frozen=True)
class Reflection:
    """What is thought of an expression."""

    state: State
    feedback: str


_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_QUOTES = {"'": "'", '"': '"', "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_EDIT_NAMES = {edit.value: edit for edit in ImageEdit} | {
    "extened object crop": ImageEdit.EXTENDED_CROP  # the paper's prompt spells it so
}


def read_plan(answer: str) -> Plan:
    """The plan in an answer, whose JSON may be broken and may have words around it.

    ``{"reasoning": str, "actions": [{"tool_name": "LLM" | "VLM", "tool_parameters": {"question":
    str, "image_editing": "object crop" | "extended object crop" | "object highlight"}}]}``; names
    are read in any case. An action whose tool is "none" is none.

    Raises:
        RejectedAnswerError: there is no such plan in it.
    """
    content = _json_object(answer)
    actions = content.get("actions")
    if not isinstance(actions, list):
        raise RejectedAnswerError("no list of actions")
    if len(actions) > MAX_ACTIONS:
        raise RejectedAnswerError("too many actions")
    read = [action for entry in actions if (action := _read_action(entry)) is not None]
    reasoning = content.get("reasoning")
    return Plan(tuple(read), reasoning if isinstance(reasoning, str) else "")


def _json_object(answer: str) -> dict[str, Any]:
    text = _THOUGHTS.sub("", answer)
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        raise RejectedAnswerError("no JSON")
    try:
        content = json.loads(text[start : end + 1])
    except ValueError:
        content = _repaired(text[start:])
    if not isinstance(content, dict):
        raise RejectedAnswerError("no JSON object")
    return _lower_keys(content)


def _repaired(text: str) -> Any:
    try:
        import json_repair
    except ImportError:
        raise ConfigError(
            "plans of the agent are repaired by json-repair: pip install 'llmdet[chat]'"
        ) from None
    content = json_repair.loads(text, skip_json_loads=True)
    if isinstance(content, list):  # words or braces behind the plan
        content = next((entry for entry in content if isinstance(entry, dict)), None)
    return content


def _lower_keys(entry: Mapping[Any, Any]) -> dict[str, Any]:
    return {_name(key): value for key, value in entry.items()}


def _name(value: Any) -> str:
    """A key or a name in lower case, with blanks for underscores and hyphens."""
    return " ".join(re.split(r"[\s_-]+", str(value).strip().lower()))


def _read_action(entry: Any) -> Action | None:
    if not isinstance(entry, Mapping):
        raise RejectedAnswerError("an action that is no object")
    action = _lower_keys(entry)
    tool = _name(action.get("tool name", ""))
    if tool == "none":
        return None
    if tool == "llm":
        return Action(Tool.REWRITE)
    if tool != "vlm":
        raise RejectedAnswerError("an unknown tool")
    parameters = action.get("tool parameters")
    if not isinstance(parameters, Mapping):
        raise RejectedAnswerError("an action without parameters")
    parameters = _lower_keys(parameters)
    question = parameters.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RejectedAnswerError("an action without a question")
    edit = _EDIT_NAMES.get(_name(parameters.get("image editing")))
    if edit is None:
        raise RejectedAnswerError("an unknown image editing")
    return Action(Tool.DESCRIBE, " ".join(question.split()), edit)


_STATE_WORDS = {
    "right": State.RIGHT,
    "correct": State.RIGHT,
    "true": State.RIGHT,
    "wrong": State.WRONG,
    "incorrect": State.WRONG,
    "false": State.WRONG,
    "uncertain": State.UNCERTAIN,
    "unsure": State.UNCERTAIN,
    "unclear": State.UNCERTAIN,
}
_CONCLUSION = re.compile(r"\bconclusion\b\W*", re.IGNORECASE)
_FEEDBACK = re.compile(r"^\W*feedback\b\W*", re.IGNORECASE)
#: The state at once, or behind "the expression is", which no word of an expression can imitate.
_STATE = re.compile(
    r"(?:(?:the|this|new|candidate|given)\s+)*(?:expression\s+)?(?:(?:is|as|seems|appears)\s+)?"
    r"(?P<not>not\s+)?(?:(?:entirely|fully|completely|partly|partially|probably|still)\s+)?"
    rf"(?P<state>{'|'.join(_STATE_WORDS)})\b",
    re.IGNORECASE,
)


def read_reflection(answer: str) -> Reflection:
    """The feedback and the state in ``Feedback: ... Conclusion: right | wrong | uncertain``.

    Raises:
        RejectedAnswerError: it comes to no conclusion.
    """
    text = _THOUGHTS.sub("", answer).strip()
    parts = _CONCLUSION.split(text)
    if len(parts) < 2:
        raise RejectedAnswerError("no conclusion")
    conclusion = re.sub(r"'[^']*'|\"[^\"]*\"|\u201c[^\u201d]*\u201d", "", parts[-1])
    found = _STATE.match(" ".join(conclusion.split()))
    if found is None:
        raise RejectedAnswerError("an unknown conclusion")
    state = _STATE_WORDS[found["state"].lower()]
    if found["not"]:
        if state is not State.RIGHT:
            raise RejectedAnswerError("an unknown conclusion")
        state = State.WRONG
    feedback = _FEEDBACK.sub("", " ".join(parts[:-1]).strip(" \n*#")).strip(" \n*#")
    return Reflection(state, feedback)


_NEW_EXPRESSION = re.compile(r"\bnew\s+expressions?\b\s*\**\s*:\s*\**\s*([^\n]*)", re.IGNORECASE)


def read_expression(answer: str) -> str:
    """What follows the last ``New expression:`` of an answer, without quotes and final stop.

    Raises:
        RejectedAnswerError: nothing follows, or too much.
    """
    found = _NEW_EXPRESSION.findall(_THOUGHTS.sub("", answer))
    expression = plain_expression(found[-1]) if found else ""
    if not any(map(str.isalnum, expression)):
        raise RejectedAnswerError("no new expression")
    if len(expression.split()) > MAX_EXPRESSION_WORDS:
        raise RejectedAnswerError("too long a new expression")
    return expression


def read_description(answer: str) -> str:
    """What a model says of a picture, on one line.

    Raises:
        RejectedAnswerError: it says nothing.
    """
    description = " ".join(_THOUGHTS.sub("", answer).split())
    if not any(map(str.isalnum, description)):
        raise RejectedAnswerError("no description")
    return description


def plain_expression(text: str) -> str:
    """An expression on one line without quotes around it and without a final stop."""
    text = " ".join(text.split()).strip("* ").removesuffix(".")
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip().removesuffix(".")
    return text
