"""Questions about regions whose last sentence says what form the answer has.

RegionGPT calls them task-guided prompts: the form is the same in training and in the test, and the
question before it has several wordings, so that a model does not learn one by heart. ``<region>``
stands for a region (arXiv 2403.02330, section 3.3; the wordings are ours).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARK = "<region>"
#: The answer to a choice where no region fits.
NO_REGION = "No corresponding options found."


@dataclass(frozen=True)
class RegionTask:
    """How something is asked of regions."""

    wordings: tuple[str, ...]  # the first one is asked in tests
    form: str  # of the answer


_ANY_NAME = "Answer the question using a single word or phrase."
_NAME_OF = "Answer the question using a single word or phrase from {vocabulary} categories."

TASKS = {
    "classify": RegionTask(
        (
            "What category name best describes the region represented by <region>?",
            "What kind of object is shown in <region>?",
            "Which class does the object in <region> belong to?",
            "Name the object that <region> marks.",
            "What is the thing in <region> called?",
            "How would you label the content of <region>?",
            "Give the category of <region>.",
            "Look at <region>: what is it?",
            "To which category would you assign <region>?",
            "What does <region> show?",
        ),
        _NAME_OF,
    ),
    "caption": RegionTask(
        (
            "What can be seen in <region>?",
            "Describe the part of the image that <region> marks.",
            "What is there in <region>, and what is it like?",
            "Say what <region> shows.",
            "How would you describe <region> to someone who cannot see it?",
            "Give a description of <region>.",
            "Tell me about the content of <region>.",
            "Write a caption for <region>.",
        ),
        "Answer with a short phrase.",
    ),
    "refer": RegionTask(
        (
            "How would you refer to <region> so that nobody confuses it with anything else here?",
            "Which words tell <region> from the rest of the image?",
            "What sets <region> apart from everything else in the image?",
            "Point out <region> in words.",
            "Write an expression that fits <region> and nothing else in this image.",
            "Suppose someone must find <region> by your words alone: what do you say?",
            "Identify <region> for someone who looks at the same image.",
            "Give a phrase that leads to <region> and to no other object.",
        ),
        "Answer with one referring expression.",
    ),
    "choose": RegionTask(
        (
            'From the regions denoted by {marks}, which one fits "{text}"?',
            'Which of {marks} is "{text}"?',
            'Among {marks}, find the one that matches "{text}".',
            'You are given {marks}. Which of them does "{text}" speak of?',
            'Someone says "{text}". Which of {marks} is meant?',
            'Select the region for "{text}" out of {marks}.',
            '"{text}": to which of {marks} does this refer?',
            'Compare {marks}. Which one shows "{text}"?',
        ),
        "Answer the question using the template Region [x].",
    ),
}


def ask_of_regions(
    task: str,
    marks: Sequence[str] = (MARK,),
    *,
    wording: int = 0,
    vocabulary: str | None = None,
    text: str = "",
) -> str:
    """A question with the form of its answer.

    Args:
        task: a key of :data:`TASKS`.
        marks: what stands for the regions, in their order; one but for "choose".
        wording: which of the task's, from 0.
        vocabulary: what the classes of "classify" are called as a whole; None for any name.
        text: what "choose" looks for.
    """
    chosen = TASKS[task]
    form = chosen.form
    if task == "classify":
        form = form.format(vocabulary=vocabulary) if vocabulary else _ANY_NAME
    if task == "choose":
        asked = chosen.wordings[wording].format(marks=", ".join(marks), text=text)
    else:
        (mark,) = marks
        asked = chosen.wordings[wording].replace(MARK, mark)
    return f"{asked} {form}"


def choice(number: int | None) -> str:
    """The answer that names the n-th region, counted from 1, or none of them."""
    return NO_REGION if number is None else f"Region [{number}]."


def read_class(answer: str) -> str:
    """What of an answer to "classify" can be a class name: up to the first comma, in lower case."""
    return answer.partition(",")[0].strip().lower()


_CHOICE = re.compile(r"\bregion\s*\[?\s*(\d+)\s*\]?", re.IGNORECASE)
_NONE = re.compile(r"\bno (?:corresponding|matching) (?:options?|regions?)\b", re.IGNORECASE)


def read_choice(answer: str) -> int | None:
    """Which region an answer names, counted from 1; 0 for none of them, None if it says neither."""
    found = _CHOICE.search(answer)
    if found:
        return int(found[1])
    return 0 if _NONE.search(answer) else None
