"""What decides what the GranD engine writes, level by level."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmdet.errors import ConfigError

#: Who is asked.
CAPTIONER, DESCRIBER, RELATER, WRITER = "captioner", "describer", "relater", "writer"
#: What looks at boxes.
BOXES, MASKS, DEPTH = "boxes", "masks", "depth"
LEVELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class ObjectSettings:
    """Level 1: objects.

    Attributes:
        classes: names that are looked for in every picture, beside those that the captioner sees.
        tags: names that the captioner may see, at most; 0 does not ask it.
        overlap: IoU above which two boxes of one detector are the same.
        agree: detectors that must have found an object; what fewer have found floats.
        regions: objects of a picture, those with the best scores.
        min_side: an object's shorter side in pixels; smaller ones show nothing.
        attempts: how often a question is asked before it stays without an answer.
    """

    classes: tuple[str, ...] = ()
    tags: int = 30
    overlap: float = 0.9
    agree: int = 1
    regions: int = 40
    min_side: int = 16
    attempts: int = 3

    def __post_init__(self) -> None:
        if not self.classes and not self.tags:
            raise ConfigError(
                "nothing is looked for: name classes, or let the captioner see at least one tag"
            )


@dataclass(frozen=True)
class CaptionSettings:
    """Level 2: short captions and relations.

    Attributes:
        captions: short captions of a picture.
        relations: of a picture, at most; 0 asks for none.
        overlap: IoU from which on what a detector finds for a phrase is an object.
        attempts: how often a question is asked before it stays without an answer.
    """

    captions: int = 2
    relations: int = 8
    overlap: float = 0.75
    attempts: int = 3


@dataclass(frozen=True)
class DescriptionSettings:
    """Level 3: the dense caption.

    Attributes:
        min_words: the least number of words.
        rewrites: how often a caption that names what no box supports is written anew, before the
            sentences that do are removed.
        overlap: IoU from which on what a detector finds for a phrase is an object.
        attempts: how often a question is asked before it stays without an answer.
    """

    min_words: int = 25
    rewrites: int = 1
    overlap: float = 0.75
    attempts: int = 3


@dataclass(frozen=True)
class ContextSettings:
    """Level 4: what goes beyond the picture.

    Attributes:
        min_words: the least number of words of the context.
        affordances: objects of which is said what can be done with them, at most; 0 asks for none.
        attempts: how often a question is asked before it stays without an answer.
    """

    min_words: int = 40
    affordances: int = 8
    attempts: int = 3


@dataclass(frozen=True)
class GrandSettings:
    """All levels; each of them decides only what is written from it on."""

    objects: ObjectSettings = field(default_factory=ObjectSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    description: DescriptionSettings = field(default_factory=DescriptionSettings)
    context: ContextSettings = field(default_factory=ContextSettings)

    def of(self, level: int) -> object:
        """Those of a level."""
        return (self.objects, self.captions, self.description, self.context)[level - 1]


#: Level -> the roles that must have a language model.
ROLES = {
    1: (CAPTIONER, DESCRIBER),
    2: (CAPTIONER, RELATER),
    3: (WRITER,),
    4: (WRITER,),
}


def roles_up_to(level: int) -> tuple[str, ...]:
    """The roles of all levels up to one."""
    return tuple(dict.fromkeys(role for n in LEVELS[:level] for role in ROLES[n]))
