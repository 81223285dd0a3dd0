"""What a language model of retrieval is asked about lists of told objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdet.datasets.toy.conversations import Objects
from llmdet.datasets.toy.retrieval import conversation_row, training_turns
from llmdet.datasets.toy.scene import Scene
from llmdet.testing.told_objects import LISTS, ListQuestions, draw_objects

#: Task of a conversation -> its share: of the first steps, and of those behind.
EARLY = {"kinds": 0.7, "names": 0.3}
LATE = {
    "kinds": 0.15,
    "words": 0.05,
    "places": 0.3,
    "sides": 0.2,
    "names": 0.15,
    "pairs": 0.15,
}
_LONGEST = 6  # objects of a scene
_OF_TWO = ("places", "sides", "pairs")  # have no question about one object
_TRIES = 100


@dataclass(frozen=True)
class Searches:
    """Kinds and names until they are known, then all that is to be looked for.

    Lists grow from two objects to six in four fifths of the first steps, and those that places
    are asked of once more behind them.

    Attributes:
        scenes: whose objects are told.
        steps: of training.
        first: so many of them are of :data:`EARLY` alone; a model that is asked everything from the
            beginning learns nothing for long.
        rejection: with False nothing is asked for that is not there.
    """

    scenes: Sequence[Scene]
    steps: int
    first: int
    rejection: bool = True

    def __call__(self, step: int, rng: np.random.Generator) -> list[ListQuestions]:
        """See :class:`~llmdet.testing.told_objects.Lesson`."""
        shares = EARLY if step <= self.first else LATE
        tasks = rng.choice(list(shares), LISTS, p=list(shares.values()))
        return [self._questions(str(task), step, rng) for task in tasks]

    def _questions(self, task: str, step: int, rng: np.random.Generator) -> ListQuestions:
        """A list that raises questions of a task; of names, where scenes have none."""
        grown = (step - self.first * (task in ("places", "sides"))) / (0.8 * self.first)
        longest = 2 + int((_LONGEST - 2) * min(1.0, grown))
        for _ in range(_TRIES):
            scene = self.scenes[int(rng.integers(len(self.scenes)))]
            shown = draw_objects(scene, longest, rng, shortest=1 + (task in _OF_TWO))
            height, width = shown.size
            boxes = tuple(item.box for item in shown.items)
            objects = Objects(tuple(shown.kinds), boxes, (width, height))
            turns = training_turns(task, objects, rng, self.rejection)
            if turns:
                return shown, conversation_row(objects, turns, "")
        return self._questions("names", step, rng)
