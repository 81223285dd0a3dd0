"""Questions and answers about the chosen objects of a picture, and the rows that hold them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress, zip_longest
from typing import Any

from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.pictures import Picture, RegionObject, overlaps
from llmdet.datasets.regions.selection import generator_of
from llmdet.datasets.regions.settings import RegionSettings
from llmdet.prompts.region_tasks import MARK, TASKS, ask_of_regions, choice

SHARED_TEXT = "description of several objects of its picture"
ALONE = "description of an object without another region to choose from"
_SAME_PLACE = 0.5  # IoU from which evaluation takes a region for the right one

#: An object and what is said of it; None where the task says its class.
Topic = tuple[RegionObject, str | None]


class RowWriter:
    """A row that grows by a question and an answer at a time.

    Args:
        picture: what it is about.
        settings: name the task and the folder of the pictures.
    """

    def __init__(self, picture: Picture, settings: RegionSettings) -> None:
        self.picture, self.settings = picture, settings
        self._regions: list[RegionObject] = []
        self._numbers: dict[int, int] = {}  # of regions, by the identity of their objects
        self._turns: list[dict[str, str]] = []
        self._last = -1  # region that the last mark stands for

    @property
    def questions(self) -> int:
        """How many it holds."""
        return len(self._turns) // 2

    def marks(self, objects: Sequence[RegionObject]) -> list[str]:
        """What stands for regions, which are entered where they are new.

        A mark bears a number where its region is known already, and where a mark without one would
        stand for another region: the one behind that of the mark before it.
        """
        marks = []
        for item in objects:
            is_new = id(item) not in self._numbers
            number = self._numbers.setdefault(id(item), len(self._regions))
            if is_new:
                self._regions.append(item)
            is_next = is_new and number == self._last + 1
            marks.append(MARK if is_next else f"<region:{number}>")
            self._last = number
        return marks

    def add(self, question: str, answer: str) -> None:
        """Add two turns; the first one shows the image."""
        value = question if self._turns else f"<image>\n{question}"
        self._turns.append({"from": "human", "value": value})
        self._turns.append({"from": "gpt", "value": answer})

    def row(self) -> dict[str, Any]:
        """What is written."""
        return {
            "filename": self.settings.folder + self.picture.filename,
            "height": self.picture.height,
            "width": self.picture.width,
            "task": self.settings.task,
            "regions": [
                {"bbox": item.box} | ({} if item.mask is None else {"segmentation": item.mask})
                for item in self._regions
            ],
            "conversations": self._turns,
        }


def rows_of(
    picture: Picture, chosen: Sequence[int], settings: RegionSettings, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    """Rows about the chosen objects of a picture.

    Args:
        picture: whole.
        chosen: places of objects.
        settings: what is asked.
        ledger: counts what cannot be asked.
    """
    generator = generator_of(settings, picture, "ask")
    for topics in _topics([picture.objects[place] for place in chosen], settings):
        if settings.task in ("refer", "choose"):
            topics = _of_one_object(topics, picture, ledger)
        writer = RowWriter(picture, settings)
        for item, text in topics:
            if settings.task == "choose":
                _ask_to_choose(writer, item, text or "", generator, ledger)
            else:
                _ask_of_one(writer, item, text, generator)
            if writer.questions == settings.turns:
                yield writer.row()
                writer = RowWriter(picture, settings)
        if writer.questions:
            yield writer.row()


def _topics(objects: Sequence[RegionObject], settings: RegionSettings) -> list[list[Topic]]:
    """What is asked, in groups of which no row mixes two: no question comes twice in a row."""
    if settings.task == "classify":
        return [[(item, None) for item in objects]]
    texts = [item.texts or [item.name or ""] for item in objects]
    rounds = zip_longest(*texts)
    return [
        [(item, text) for item, text in zip(objects, said, strict=True) if text is not None]
        for said in rounds
    ]


def _ask_of_one(
    writer: RowWriter, item: RegionObject, text: str | None, generator: random.Random
) -> None:
    settings = writer.settings
    assert settings.task is not None
    question = ask_of_regions(
        settings.task,
        writer.marks([item]),
        wording=_wording(settings, generator),
        vocabulary=settings.vocabulary,
    )
    writer.add(question, (item.name if text is None else text) or "")


def _wording(settings: RegionSettings, generator: random.Random) -> int:
    assert settings.task is not None
    return 0 if settings.one_wording else generator.randrange(len(TASKS[settings.task].wordings))


def _of_one_object(topics: list[Topic], picture: Picture, ledger: Ledger) -> list[Topic]:
    """Those whose words mean one object, as far as the annotations say."""
    said = Counter(text.casefold() for item in picture.objects for text in item.texts)
    kept = [(item, text) for item, text in topics if said[(text or "").casefold()] <= 1]
    if len(kept) < len(topics):
        ledger.note(SHARED_TEXT, picture.filename, len(topics) - len(kept))
    return kept


def _ask_to_choose(
    writer: RowWriter, item: RegionObject, text: str, generator: random.Random, ledger: Ledger
) -> None:
    settings = writer.settings
    hard, easy = rivals(writer.picture, item)
    if not hard and not easy:
        ledger.note(ALONE, writer.picture.filename)
        return
    generator.shuffle(hard)
    generator.shuffle(easy)
    # As many regions with the right one as without: their number must not tell.
    right = [] if generator.random() < settings.none_share else [item]
    shown = [*right, *hard, *easy][: settings.candidates]
    generator.shuffle(shown)
    wording = _wording(settings, generator)
    question = ask_of_regions("choose", writer.marks(shown), wording=wording, text=text)
    number = next((n for n, each in enumerate(shown, start=1) if each is item), None)
    writer.add(question, choice(number))


def rivals(picture: Picture, item: RegionObject) -> tuple[list[RegionObject], list[RegionObject]]:
    """Objects that may be shown beside the right one: those of its class, and others.

    None that covers the same place (which an evaluation would take for right), and none that stands
    for several objects.
    """
    others = [each for each in picture.objects if each is not item and not each.ignored]
    apart = overlaps(item.box, others) < _SAME_PLACE
    hard: list[RegionObject] = []
    easy: list[RegionObject] = []
    for other in compress(others, apart.tolist()):
        same_class = item.name is not None and other.name == item.name
        (hard if same_class else easy).append(other)
    return hard, easy
