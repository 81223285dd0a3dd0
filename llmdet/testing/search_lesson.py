"""What a language model of retrieval is asked about lists of told objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdet.datasets.toy.conversations import Objects
from llmdet.datasets.toy.retrieval import conversation_row, training_turns
from llmdet.datasets.toy.scene import Scene
from llmdet.prompts.objects import list_candidates
from llmdet.testing.told_objects import AskedList, some_objects

#: Task of a conversation -> its share: of the first steps, and of those behind.
FIRST = {"kinds": 0.7, "names": 0.3}
THEN = {"kinds": 0.25, "words": 0.1, "places": 0.25, "names": 0.15, "pairs": 0.25}
_LONGEST = 7  # objects


@dataclass(frozen=True)
class Searches:
    """Kinds and names until they are known, then all that is to be looked for.

    Lists grow from two objects to seven in four fifths of the first steps, and those that places
    are asked of once more.

    Attributes:
        steps: of training.
        first: so many of them are of :data:`FIRST` alone; a model that is asked everything from the
            beginning learns nothing for long.
        rejection: with False nothing is asked for that is not there.
    """

    steps: int
    first: int
    rejection: bool = True

    def __call__(
        self, scenes: Sequence[Scene], step: int, rng: np.random.Generator
    ) -> list[AskedList]:
        """See :class:`~llmdet.testing.told_objects.Lesson`."""
        shares = FIRST if step <= self.first else THEN
        tasks = rng.choice(list(shares), len(scenes), p=list(shares.values()))
        pairs = zip(scenes, tasks, strict=True)
        return [self._asked(scene, str(task), step, rng) for scene, task in pairs]

    def _asked(self, scene: Scene, task: str, step: int, rng: np.random.Generator) -> AskedList:
        of_places = task == "places"
        grown = (step - self.first * of_places) / (0.8 * self.first)
        longest = 2 + int((_LONGEST - 2) * min(1.0, grown))
        shown = some_objects(scene, longest, rng, shortest=1 + of_places)
        height, width = shown.size
        boxes = tuple(item.box for item in shown.items)
        objects = Objects(tuple(shown.kinds), boxes, (width, height))
        turns = training_turns(task, objects, rng, self.rejection)
        (question, answer), *others = turns or training_turns("names", objects, rng)
        listed = f"<image>\n{list_candidates(len(boxes))}\n{question}"
        return shown, conversation_row(objects, [(listed, answer), *others])
