"""What is looked for in pictures, and where the labels go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmdet.apis.tiles import Tiles
from llmdet.data_engines.identities import hash_of_config, hash_of_files
from llmdet.data_engines.pictures import PictureSet
from llmdet.errors import ConfigError, DataError
from llmdet.utils.files import read_text

#: Counted up whenever the same pictures and settings would give other labels.
VERSION = 1
TARGETS = ("coco", "yolo", "voc", "odvg", "grounding")
_THRESHOLD = re.compile(r":\s+([-+.\d][-+.\deE]*)$")


@dataclass(frozen=True)
class LabelSettings:
    """What decides the labels of a picture.

    Attributes:
        classes: names to look for.
        threshold: boxes of a lower score are left out.
        thresholds: other thresholds for some classes.
        nms: overlap (IoU) above which the best of several boxes stays alone, whatever their
            classes; None keeps them all.
        tiles: how large pictures are cut; None looks at them as a whole.
        captions: any of "image" and "regions", what the language model describes.
        doubt: a picture is worth a look where a score lies less than this above its threshold,
            or nothing was found and the best score less than this below.
    """

    classes: tuple[str, ...]
    threshold: float = 0.3
    thresholds: Mapping[str, float] = field(default_factory=dict)
    nms: float | None = 0.7
    tiles: Tiles | None = None
    captions: frozenset[str] = frozenset()
    doubt: float = 0.1

    def limit(self, name: str) -> float:
        """The threshold of a class."""
        return self.thresholds.get(name, self.threshold)


@dataclass(frozen=True)
class OutputSettings:
    """How labels are written.

    Attributes:
        target: one of :data:`TARGETS`.
        val: part of the pictures that goes to validation, from 0 to below 1.
        seed: draws them.
        copy: copy the pictures, else their folder is linked.

    Raises:
        ConfigError: there is no such format, or ``val`` is out of range.
    """

    target: str
    val: float = 0.1
    seed: int = 0
    copy: bool = False

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ConfigError(f"The format {self.target!r} is none of {', '.join(TARGETS)}.")
        if not 0 <= self.val < 1:
            raise ConfigError(f"The part for validation is {self.val!r}: it is from 0 to below 1.")

    def check(self, settings: LabelSettings) -> None:
        """Raise a ConfigError where the format has no place for the captions."""
        places = {"grounding": {"image", "regions"}, "odvg": {"image"}}
        if missing := sorted(settings.captions - places.get(self.target, set())):
            raise ConfigError(
                f"The format {self.target} has no place for captions of {missing[0]}: "
                "write grounding (of images also odvg)."
            )

    def validation(self, filenames: list[str]) -> frozenset[str]:
        """The pictures for validation: the same for the same names and seed, in any order.

        Where there are two pictures or more, neither part is empty.
        """
        if self.val == 0 or len(filenames) < 2:
            return frozenset()
        count = min(max(1, round(self.val * len(filenames))), len(filenames) - 1)
        return frozenset(sorted(filenames, key=self._rank)[:count])

    def _rank(self, filename: str) -> bytes:
        return hashlib.blake2b(f"{self.seed}\0{filename}".encode(), digest_size=8).digest()


def read_classes(path: Path) -> tuple[tuple[str, ...], dict[str, float]]:
    """Class names of a text file, one a line, some with a threshold: ``stop sign: 0.4``.

    Blank lines, and what begins with ``#``, are left out.

    Returns:
        The names, and the thresholds of some.

    Raises:
        DataError: there is no name, one comes twice, or a threshold is not from 0 to 1.
    """
    names: list[str] = []
    thresholds: dict[str, float] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, limit = _split(text, f"{path}:{number}")
        if name in names:
            raise DataError(f"{path}:{number}: the class {name!r} is there already")
        names.append(name)
        if limit is not None:
            thresholds[name] = limit
    if not names:
        raise DataError(f"{path} names no class: write one name a line")
    return tuple(names), thresholds


def _split(text: str, where: str) -> tuple[str, float | None]:
    found = _THRESHOLD.search(text)
    if found is None:
        return text, None
    name = text[: found.start()].strip()
    try:
        limit = float(found[1])
    except ValueError:
        return text, None
    if not name or not 0 <= limit <= 1:
        raise DataError(f"{where}: {text!r} is no 'name: threshold' with a threshold from 0 to 1")
    return name, limit


def decided_by(
    config: Any,
    weights: str | Path | None,
    pictures: PictureSet,
    settings: LabelSettings,
    output: OutputSettings,
) -> dict[str, Any]:
    """All on which the labels depend, under names that a sentence can show."""
    choices = asdict(settings) | asdict(output)
    del choices["doubt"]
    return {
        "labelling": VERSION,
        "config": hash_of_config(config),
        "weights": hash_of_files(weights),
        "pictures": pictures.identity,
        **choices,
        "classes": list(settings.classes),
        "thresholds": dict(settings.thresholds),
        "captions": sorted(settings.captions),
    }
