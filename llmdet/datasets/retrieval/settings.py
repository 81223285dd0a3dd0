"""What is asked of candidate objects, and among how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmdet.datasets.candidate_files import Candidates
from llmdet.errors import ConfigError
from llmdet.prompts.object_questions import Wordings

#: Task -> the keys of the wordings that it needs.
TASKS: dict[str, tuple[str, ...]] = {
    "detect": ("detect",),
    "many": ("detect",),
    "count": ("count",),
    "refer": ("detect",),
    "name": ("name",),
    "describe": ("phrase", "sentence", "describe"),
    "caption": ("caption", "detailed_caption"),
}
#: Tasks about classes.
CLASS_TASKS = ("detect", "many", "count", "name")
#: What annotations say of classes that they do not name: in no picture are they ("all"), not in
#: those of which it is said ("said"), or they say nothing ("nothing").
Absence = Literal["all", "said", "nothing"]
ABSENCE: dict[str, Absence] = {
    "lvis": "said",
    "openimages": "nothing",
    "visual_genome": "nothing",
}


@dataclass(frozen=True)
class RetrievalSettings:
    """What conversations are made of annotations.

    Attributes:
        task: a key of :data:`TASKS`.
        wordings: of the questions, by the keys that the task needs.
        seed: of everything that is drawn; what is drawn for a picture follows from it and the
            picture's name.
        per_image: most questions of a picture.
        turns: most questions of a row.
        candidates: most candidates of a row.
        absent: of the questions about classes, how many are about one that the picture does not
            show; 0 also leaves out expressions that are said to mean nothing in it.
        absence: what annotations say of classes that they do not name.
        most_names: most names of a question about several.
        proposals: a detector's boxes, to be candidates among the annotated ones.
        proposals_of: what their ids are: "picture" (``original_id``, where annotations have one
            entry for a sentence) or "sentence": the id of the entry.
        others: boxes of a sample's ``proposals`` are annotated objects, as in HumanRef.
        folder: put in front of the pictures' names.
        one_wording: ask every question in its task's first wording, as in a test.
        whole_expressions: a sentence describes the objects that its picture marks, as in RefCOCO.
    """

    task: str
    wordings: Mapping[str, Wordings]
    seed: int = 0
    per_image: int | None = None
    turns: int = 10
    candidates: int = 100
    absent: float = 0.1
    absence: Absence = "all"
    most_names: int = 5
    proposals: Candidates | None = None
    proposals_of: Literal["picture", "sentence"] = "picture"
    others: bool = False
    folder: str = ""
    one_wording: bool = False
    whole_expressions: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a number is out of range, or the wordings of the task are missing.
        """
        if self.task not in TASKS:
            raise ConfigError(f"task={self.task!r} is unknown; use {', '.join(TASKS)}")
        missing = [key for key in TASKS[self.task] if key not in self.wordings]
        if missing:
            raise ConfigError(f"there are no wordings for {', '.join(missing)}")
        for name, least in (("per_image", 1), ("turns", 1), ("candidates", 1), ("most_names", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}: give at least {least}")
        if not 0 <= self.absent <= 1:
            raise ConfigError(f"absent={self.absent}: give a share from 0 to 1")
