"""Models for Real-LOD's agent on toy pictures: what they say is known to be right or wrong.

They read the labelled lines of the agent's prompts, and answer as language models do. None knows a
scene: the oracle looks at the pixels that it is shown, reflector and rewriter read what it said.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llmdet.chat import ChatRequest, Pace, Usage
from llmdet.datasets.toy.agent_expressions import (
    PLACE_WORDS,
    Expression,
    Facts,
    with_article,
    with_wrong,
)
from llmdet.datasets.toy.agent_eye import SMALL_BELOW, Seen, View, look
from llmdet.datasets.toy.captions import SIDES, position, relation
from llmdet.datasets.toy.scene import SIZES
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES, Kind

_NOT_SHOWN = "The picture does not show its {}."
#: What of a question asks for an aspect; a question with none of these asks for all.
_ASKED = {
    "colour": ("colour", "color"),
    "shape": ("shape",),
    "size": ("size", "large", "small", "big"),
    "place": ("place", "where", "position", "located"),
    "relation": ("relation", "beside", "next to", "around", "other"),
}
_SEEN = re.compile(
    r"\bIt is (?:"
    rf"(?P<colour>{'|'.join(COLOURS)})|an? (?P<shape>{'|'.join(SHAPES)})"
    rf"|(?P<size>{'|'.join(SIZES)})"
    rf"|(?P<place>{'|'.join(PLACE_WORDS)})"
    rf"|(?P<word>{'|'.join(SIDES)}) an? (?P<to>(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))"
    r")\."
)


@dataclass
class ScriptedModel:
    """A chat model that is a function of the labelled lines and pictures of a request."""

    name: str
    reply: Callable[[ChatRequest], str]
    pace: Pace = field(default_factory=lambda: Pace(batch_size=32))
    usage: Usage = field(default_factory=Usage)

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.name}

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Answers, one for each request."""
        self.usage.add(len(requests), 0, 0)
        return [self.reply(request) for request in requests]


def lines_of(request: ChatRequest, label: str) -> list[str]:
    """What stands behind a label in the lines below the instruction of a request."""
    text = request.messages[-1].text.rpartition("\n\n")[2]
    return re.findall(rf"^{label}: (.*)$", text, re.MULTILINE)


def sentences(facts: Facts) -> str:
    """Facts in the oracle's words."""
    parts = [
        f"It is {facts.colour}." if facts.colour else "",
        f"It is a {facts.shape}." if facts.shape else "",
        f"It is {facts.size}." if facts.size else "",
        f"It is {facts.place}." if facts.place else "",
        *(f"It is {word} {with_article(kind)}." for word, kind in sorted(facts.relations)),
    ]
    return " ".join(part for part in parts if part)


def read_facts(text: str) -> Facts:
    """What is known after somebody said so."""
    known: dict[str, Any] = {}
    relations = set()
    for found in _SEEN.finditer(text):
        if found["word"]:
            relations.add((found["word"], Kind(*found["to"].split())))
        else:
            known |= {k: v for k, v in found.groupdict().items() if v}
    return Facts(**known, relations=frozenset(relations))


def oracle(request: ChatRequest) -> str:
    """Say what is asked of the object, as far as the picture shows it.

    A crop shows colour and shape, an extended crop also what is beside the object as far as it is
    whole. Only the whole picture shows place and size, and in it small things have no shape.
    """
    view = look(np.asarray(request.messages[-1].images[0]))
    subject = view.subject()
    if subject is None:
        return "The picture does not show what is meant."
    question = lines_of(request, "Question")[0].lower()
    asked = [a for a, words in _ASKED.items() if any(word in question for word in words)]
    seen = _see(view, subject)
    answers = []
    for aspect in asked or list(_ASKED):
        key = "relations" if aspect == "relation" else aspect
        part = sentences(replace(Facts(), **{key: getattr(seen, key)}))
        answers.append(part or _NOT_SHOWN.format(aspect))
    return " ".join(answers)


def _see(view: View, subject: Seen) -> Facts:
    kind = view.kind(subject)
    whole = view.frame is not None  # who sees no frame cannot know what part of a picture it is
    relations = set()
    for other in view.things:
        word = relation(subject.box, other.box) if other is not subject else None
        other_kind = view.kind(other)
        if word is not None and other_kind is not None:
            relations.add((word, other_kind))
    size = "small" if subject.side < SMALL_BELOW * min(view.width, view.height) else "large"
    return Facts(
        subject.colour,
        kind.shape if kind else None,
        size if whole else None,
        position(subject.box, view.width, view.height) if whole else None,
        frozenset(relations),
    )


def reflector(request: ChatRequest) -> str:
    """Compare the expression with what was said of the object."""
    expression = Expression.parse(lines_of(request, "Expression")[-1])
    if expression is None:
        return "Feedback: Wrong: words. Conclusion: wrong"
    known = lines_of(request, "Known")
    facts = read_facts(" ".join([*lines_of(request, "Description"), *known]))
    wrong, unknown = facts.wrong(expression), facts.unknown(expression)
    in_vain = [a for a in unknown if _was_asked(a, known)]
    parts = {
        "Wrong": wrong,
        "Not known": [a for a in unknown if a not in in_vain],
        "Not known after a look": in_vain,
    }
    feedback = " ".join(f"{name}: {', '.join(of)}." for name, of in parts.items() if of)
    state = "wrong" if wrong else "uncertain" if unknown else "right"
    return f"Feedback: {feedback or 'All of it is known.'} Conclusion: {state}"


def _was_asked(aspect: str, known: Sequence[str]) -> bool:
    questions = [line.partition(" - ")[0].lower() for line in known]
    return any(word in question for question in questions for word in _ASKED[aspect])


def rewriter(error_rate: float) -> Callable[[ChatRequest], str]:
    """One who replaces what is known to be wrong, and keeps the rest.

    Args:
        error_rate: share of rewritings with a wrong word in one place, 0..1; which these are
            depends on the request alone.
    """

    def reply(request: ChatRequest) -> str:
        text = lines_of(request, "Expression")[-1]
        facts = read_facts(" ".join(lines_of(request, "Description") + lines_of(request, "Known")))
        expression = Expression.parse(text) or Expression("grey", "thing")
        changed = _mended(expression, facts)
        rng = _rng(request)
        if rng.random() < error_rate:
            aspect = changed.said[int(rng.integers(len(changed.said)))]
            truth = Facts(changed.colour, changed.shape, changed.size, changed.place)
            truth = replace(
                truth, relations=frozenset([changed.relation] if changed.relation else [])
            )
            changed = with_wrong(changed, aspect, truth, rng) or changed
        return f"Reasoning: it must fit what is known.\nNew expression: '{changed}'"

    return reply


def _mended(expression: Expression, facts: Facts) -> Expression:
    changes: dict[str, Any] = {}
    for aspect in facts.wrong(expression):
        if aspect != "relation":
            changes[aspect] = getattr(facts, aspect)
            continue
        assert expression.relation is not None
        near = [r for r in sorted(facts.relations) if r[1] == expression.relation[1]]
        changes[aspect] = near[0]
    return replace(expression, **changes)


def _rng(request: ChatRequest) -> np.random.Generator:
    text = f"{request.messages[-1].text} {request.temperature} {request.seed}"
    return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16))


_LOOKS = {
    "object crop": "What is its colour and shape?",
    "extended object crop": "What other objects are beside it?",
    "object highlight": "How large is it, and where in the picture?",
}


def _plan(reasoning: str, *actions: tuple[str, str]) -> str:
    """A plan of looks (edit, question), and of rewritings: ("LLM", "")."""
    return json.dumps(
        {
            "reasoning": reasoning,
            "actions": [
                {"tool_name": "LLM", "tool_parameters": {}}
                if edit == "LLM"
                else {
                    "tool_name": "VLM",
                    "tool_parameters": {"question": question, "image_editing": edit},
                }
                for edit, question in actions
            ],
        }
    )


def _look(edit: str) -> tuple[str, str]:
    return edit, _LOOKS[edit]


def scripted_planner(request: ChatRequest) -> str:
    """The best that the feedback permits: look at what is not known, rewrite what is wrong."""
    feedback = lines_of(request, "Feedback")[-1]
    named = {
        name: aspects.split(", ")
        for name, aspects in re.findall(r"([A-Z][\w ]+): ([a-z, ]+)\.", feedback)
    }
    unknown, in_vain = named.get("Not known", []), named.get("Not known after a look", [])
    looks = []
    if {"colour", "shape"} & {*unknown, *in_vain}:
        looks.append(_look("object crop"))
    if "relation" in unknown:
        looks.append(_look("extended object crop"))
    if "relation" in in_vain:
        looks.append(("object highlight", _LOOKS["extended object crop"]))
    if {"size", "place"} & {*unknown, *in_vain}:
        looks.append(_look("object highlight"))
    rewrite = [("LLM", "")] if "Wrong" in named else []
    return _plan("from the feedback", *looks, *rewrite)


def random_planner(request: ChatRequest) -> str:
    """One of the five actions of the paper: stop, rewrite, or one of three looks."""
    choice = int(_rng(request).integers(2 + len(_LOOKS)))
    actions = [[], [("LLM", "")], *([_look(edit)] for edit in _LOOKS)]
    return _plan("by chance", *actions[choice])


def rewriting_planner(request: ChatRequest) -> str:
    """Always rewrite."""
    return _plan("always", ("LLM", ""))


def asking_planner(request: ChatRequest) -> str:
    """Always look, in all three ways."""
    return _plan("always", *map(_look, _LOOKS))


#: Policy -> the planner that follows it.
POLICIES = {
    "scripted": scripted_planner,
    "random action": random_planner,
    "always rewrite": rewriting_planner,
    "always ask": asking_planner,
}


def agent_models(planner: Any, error_rate: float) -> dict[str, Any]:
    """Role of the agent -> model.

    Args:
        planner: the model that plans.
        error_rate: of the rewriter.
    """
    return {
        "planner": planner,
        "reflector": ScriptedModel("reflector", reflector),
        "rewriter": ScriptedModel(f"rewriter {error_rate}", rewriter(error_rate)),
        "describer": ScriptedModel("oracle", oracle),
    }
