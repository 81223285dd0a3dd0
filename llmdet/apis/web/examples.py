"""Pictures with questions below the page: scenes of the toy set, which any machine can draw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llmdet.apis.web.visit import TASKS

_SEED = 11  # scenes that the quickstart's training has not shown
_EXAMPLES = 4


@dataclass(frozen=True)
class Example:
    """A picture with a question that suits it."""

    image: Path
    task: str  # one of TASKS
    words: str


def toy_examples(folder: Path) -> list[Example]:
    """Draw toy scenes, one for each task and one more; models of the quickstart know them.

    Args:
        folder: gets the pictures, and must stay for as long as the page is served.
    """
    from llmdet.datasets.toy import ToySettings, generate

    photographs = find_spec("skimage") is not None
    generate(folder, ToySettings(_SEED, train=1, val=_EXAMPLES, photographs=photographs))
    lines = (folder / "annotations" / "val_seen_grounding.jsonl").read_text("utf-8").splitlines()
    classes, sentence, expression = TASKS
    examples = []
    tasks = (classes, sentence, expression, classes)
    for row, task in zip(map(json.loads, lines), tasks, strict=True):
        grounding = row["grounding"]
        phrases = list(dict.fromkeys(r["phrase"] for r in grounding["regions"]))
        words = {classes: ", ".join(row["tags"]), sentence: grounding["caption"]}
        examples.append(
            Example(folder / "images" / row["filename"], task, words.get(task, phrases[0]))
        )
    return examples
