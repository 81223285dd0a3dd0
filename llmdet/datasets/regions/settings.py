"""What is asked about regions, and of how many."""

from __future__ import annotations

from dataclasses import dataclass

from llmdet.errors import ConfigError
from llmdet.prompts.mask_tasks import MASK_TASKS
from llmdet.prompts.region_tasks import TASKS

#: What models are taught to call the classes of formats that are one data set.
VOCABULARIES = {"lvis": "LVIS", "v3det": "V3Det", "objects365": "Objects365"}


@dataclass(frozen=True)
class RegionSettings:
    """What conversations are made of annotations.

    Attributes:
        task: a key of :data:`TASKS` or :data:`MASK_TASKS`; None keeps the conversations that the
            annotations hold.
        seed: of everything that is drawn; what is drawn for a picture follows from it and the
            picture's name.
        per_class: most objects of a class, over all pictures.
        per_image: most objects of a picture.
        turns: most questions of a row.
        candidates: most regions to choose from.
        none_share: of the choices, how many leave the right region out.
        vocabulary: how questions for a class name call the classes; None where any name will do.
        masks: give regions the masks of their objects, where these have one.
        folder: put in front of the pictures' names.
        one_wording: ask every question in its task's first wording, as in a test.
        whole_expressions: a sentence describes the object that its picture marks, as in RefCOCO.
    """

    task: str | None
    seed: int = 0
    per_class: int | None = None
    per_image: int | None = None
    turns: int = 10
    candidates: int = 4
    none_share: float = 0.1
    vocabulary: str | None = None
    masks: bool = False
    folder: str = ""
    one_wording: bool = False
    whole_expressions: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a number is out of range.
        """
        known = (*TASKS, *MASK_TASKS)
        if self.task not in (None, *known):
            raise ConfigError(f"task={self.task!r} is unknown; use {', '.join(known)}")
        if self.task in MASK_TASKS and self.per_class is not None:
            raise ConfigError(
                f"task={self.task!r} is written as the annotations are read, before the objects of "
                "a class are known: use per_image instead of per_class"
            )
        for name, least in (("per_class", 1), ("per_image", 1), ("turns", 1), ("candidates", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}: give at least {least}")
        if not 0 <= self.none_share <= 1:
            raise ConfigError(f"none_share={self.none_share}: give a share from 0 to 1")
