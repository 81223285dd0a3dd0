"""Which objects are asked about: every one that the task can use, up to caps, drawn by a seed."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.pictures import Picture, RegionObject
from llmdet.datasets.regions.settings import RegionSettings
from llmdet.errors import ConfigError

CROWD = "crowd or difficult object"
NO_NAME = "object without a class"
NO_TEXT = "object without a description"
NOT_ALONE = "object whose class has several objects in its picture"
BEYOND_CLASS = "object beyond --per-class"
BEYOND_IMAGE = "object beyond --per-image"


def generator_of(settings: RegionSettings, picture: Picture, purpose: str) -> random.Random:
    """What is drawn for a picture, whatever stands before it in the file."""
    return random.Random(f"{settings.seed}/{settings.task}/{purpose}/{picture.filename}")


def select(
    pictures: Iterable[Picture], settings: RegionSettings, ledger: Ledger
) -> list[np.ndarray]:
    """Places of the objects that are asked about, for each picture, in random order.

    Each object draws a number; of a class those with the lowest numbers stay, so that memory grows
    by a few dozen bytes an object.

    Raises:
        ConfigError: a cap for each class is set where objects have no classes.
    """
    number_of_class: dict[str, int] = {}
    owners, places, classes, drawn = array("q"), array("i"), array("i"), array("d")
    count = 0
    for count, picture in enumerate(pictures, start=1):
        generator = generator_of(settings, picture, "select")
        usable = usable_objects(picture, settings, ledger)
        generator.shuffle(usable)
        if settings.per_image is not None and len(usable) > settings.per_image:
            ledger.note(BEYOND_IMAGE, picture.filename, len(usable) - settings.per_image)
            usable = usable[: settings.per_image]
        for place in usable:
            name = picture.objects[place].name
            if name is None and settings.per_class is not None:
                raise ConfigError(
                    f"--per-class: an object of {picture.filename} has no class; name a file that "
                    "has them with --objects, or use --per-image"
                )
            owners.append(count - 1)
            places.append(place)
            classes.append(number_of_class.setdefault(name or "", len(number_of_class)))
            drawn.append(generator.random())
    if not count:
        return []
    kept = _lowest(np.array(classes), np.array(drawn), settings.per_class)
    if len(kept) < len(owners):
        ledger.note(BEYOND_CLASS, number=len(owners) - len(kept))
    bounds = np.searchsorted(np.array(owners, np.int64)[kept], np.arange(1, count))
    return np.split(np.array(places, np.int64)[kept], bounds)


def _lowest(classes: np.ndarray, drawn: np.ndarray, most: int | None) -> np.ndarray:
    """[n] places of the objects that drew the lowest numbers of their class, in order."""
    if most is None:
        return np.arange(len(classes))
    order = np.lexsort((drawn, classes))
    ordered = classes[order]
    first = np.searchsorted(ordered, ordered)  # of each one's class
    return np.sort(order[np.arange(len(order)) - first < most])


def usable_objects(picture: Picture, settings: RegionSettings, ledger: Ledger) -> list[int]:
    """Places of the objects that the task can ask about; the others are counted by cause.

    A choice is between descriptions; in a picture without any, between names of classes, where
    only one object has the name. Other objects of a described picture are there to choose from.
    """
    of_class = Counter(item.name for item in picture.objects)
    described = any(item.texts for item in picture.objects)

    def problem(item: RegionObject) -> str | None:
        if item.ignored:
            return CROWD
        if settings.task == "classify":
            return None if item.name else NO_NAME
        if settings.task == "choose" and not described and item.name:
            return None if of_class[item.name] == 1 else NOT_ALONE
        return None if item.texts else NO_TEXT

    usable = []
    for place, item in enumerate(picture.objects):
        cause = problem(item)
        if cause is None:
            usable.append(place)
        elif cause != NO_TEXT or not described:
            ledger.note(cause, picture.filename)
    return usable
