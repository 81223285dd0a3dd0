"""Pictures with questions below the page: scenes of the toy set, which any machine can draw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llmdet.apis.web.visit import TASKS

_SEED = 11  # scenes that the quickstart's training has not shown
_SCENES = 12  # drawn; the first ones with several classes are shown


@dataclass(frozen=True)
class Example:
    """A picture with a question that suits it."""

    image: Path
    task: str  # one of TASKS
    words: str


def toy_examples(folder: Path) -> list[Example]:
    """Draw toy scenes, one for each task and one more; models of the quickstart know them.

    Such a model has learned class names: the sentence and the expression consist of them.

    Args:
        folder: gets the pictures, and must stay for as long as the page is served.
    """
    from llmdet.datasets.toy import ToySettings, generate

    photographs = find_spec("skimage") is not None
    generate(folder, ToySettings(_SEED, train=1, val=_SCENES, photographs=photographs))
    lines = (folder / "annotations" / "val_seen_grounding.jsonl").read_text("utf-8").splitlines()
    scenes = [scene for scene in map(json.loads, lines) if len(scene["tags"]) > 1]
    classes, sentence, expression = TASKS
    examples = []
    for scene, task in zip(scenes, (classes, sentence, expression, classes), strict=False):
        names = scene["tags"]
        words = {
            classes: ", ".join(names),
            sentence: " and ".join(names[:2]),
            expression: names[-1],
        }
        examples.append(Example(folder / "images" / scene["filename"], task, words[task]))
    return examples
