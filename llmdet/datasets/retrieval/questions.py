"""Questions about the objects of a picture, and the rows that hold them among other candidates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmdet.datasets.candidates import overlapping
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.pictures import Picture, PictureCaption
from llmdet.datasets.regions.tasks import SHARED_TEXT
from llmdet.datasets.retrieval.settings import CLASS_TASKS, RetrievalSettings
from llmdet.prompts.object_questions import SEPARATOR, count_answer, objects_in, renumber_objects
from llmdet.prompts.objects import ObjectGrammar, object_mark

NOT_ALL = "class with a crowd, or of which not every object is annotated"
ONE_CLASS = "picture with one class alone"
NO_ABSENT = "rejection left out, as no class is known to be absent"
TOO_MANY = "question about more objects than there are candidates"
BEYOND_IMAGE = "question beyond --per-image"
NOTHING = "picture without anything to ask about"
SAME_PLACE = 0.5  # IoU from which a proposal is an annotated object
_PHRASE, _DETAILED = 5, 40  # most words of a phrase; least words of a detailed caption
_GRAMMAR = ObjectGrammar()


@dataclass(frozen=True)
class Question:
    """What is asked and answered; objects are numbered as in their picture."""

    wording: str  # key of the wordings
    asked: str  # what stands for [OBJ]
    answer: str

    @property
    def objects(self) -> list[int]:
        """The objects that it speaks of."""
        return list(dict.fromkeys([*objects_in(self.asked), *objects_in(self.answer)]))


def questions_of(
    picture: Picture,
    settings: RetrievalSettings,
    vocabulary: Sequence[str],
    generator: random.Random,
    ledger: Ledger,
) -> list[Question]:
    """Everything that the task asks of a picture, in random order.

    Args:
        picture: whole.
        settings: what is asked.
        vocabulary: names of all classes.
        generator: draws.
        ledger: counts what cannot be asked.
    """
    if settings.task in CLASS_TASKS:
        questions = _of_classes(picture, settings, vocabulary, generator, ledger)
    elif settings.task == "refer":
        questions = _of_expressions(picture, settings)
    elif settings.task == "describe":
        questions = _of_descriptions(picture, ledger)
    else:
        questions = [_of_caption(caption, picture) for caption in picture.captions]
    if not questions:
        ledger.note(NOTHING, picture.filename)
    generator.shuffle(questions)
    if settings.per_image is not None and len(questions) > settings.per_image:
        ledger.note(BEYOND_IMAGE, picture.filename, len(questions) - settings.per_image)
        questions = questions[: settings.per_image]
    return questions


def _of_classes(
    picture: Picture,
    settings: RetrievalSettings,
    vocabulary: Sequence[str],
    generator: random.Random,
    ledger: Ledger,
) -> list[Question]:
    objects: dict[str, list[int]] = {}
    for number, item in enumerate(picture.objects):
        if item.name is not None and not item.ignored:
            objects.setdefault(item.name, []).append(number)
    shown = {item.name for item in picture.objects}
    if settings.task == "name":
        return [
            Question("name", object_mark(number), _GRAMMAR.write({name: [number]}))
            for name, numbers in objects.items()
            for number in numbers
        ]
    for name in {item.name for item in picture.objects if item.ignored}:
        ledger.note(NOT_ALL, picture.filename)
        objects.pop(name or "", None)
    absent = _Absent(picture, settings, vocabulary, shown, generator, ledger)
    if settings.task == "many":
        return _of_several(picture, objects, settings, absent, generator, ledger)
    questions = []
    for name, numbers in objects.items():
        other = absent.draw()
        named = {name: numbers} if other is None else {other: []}
        answer = _GRAMMAR.write(named)
        if settings.task == "count" and other is None:
            answer = count_answer(len(numbers), answer)
        questions.append(Question(settings.task, next(iter(named)), answer))
    return questions


class _Absent:
    """Draws names of classes that a picture does not show, each once."""

    def __init__(
        self,
        picture: Picture,
        settings: RetrievalSettings,
        vocabulary: Sequence[str],
        shown: set[str | None],
        generator: random.Random,
        ledger: Ledger,
    ) -> None:
        known = {"all": vocabulary, "said": picture.absent, "nothing": ()}[settings.absence]
        self.picture, self.share, self.ledger = picture, settings.absent, ledger
        self.shown, self.generator = set(shown), generator
        self.known = known

    def draw(self) -> str | None:
        """A name for a share of the calls, else None."""
        if self.generator.random() >= self.share:
            return None
        left = [name for name in self.known if name not in self.shown]
        if not left:
            self.ledger.note(NO_ABSENT, self.picture.filename)
            return None
        name = self.generator.choice(left)
        self.shown.add(name)
        return name


def _of_several(
    picture: Picture,
    objects: dict[str, list[int]],
    settings: RetrievalSettings,
    absent: _Absent,
    generator: random.Random,
    ledger: Ledger,
) -> list[Question]:
    names = list(objects)
    generator.shuffle(names)
    questions: list[Question] = []
    while names:
        chosen = names[: generator.randint(2, settings.most_names)]
        del names[: len(chosen)]
        if len(chosen) == 1 and questions:  # the last one, beside one that was asked for already
            chosen.append(generator.choice([name for name in objects if name != chosen[0]]))
        named = {name: objects[name] for name in chosen}
        if len(chosen) < settings.most_names and (other := absent.draw()) is not None:
            named[other] = []
        if len(named) == 1:
            ledger.note(ONE_CLASS, picture.filename)
            continue
        asked = generator.sample(list(named), len(named))
        answer = _GRAMMAR.write({name: named[name] for name in asked})
        questions.append(Question("detect", SEPARATOR.join(asked), answer))
    return questions


def _of_expressions(picture: Picture, settings: RetrievalSettings) -> list[Question]:
    """Each text once, with all objects that have it."""
    meant: dict[str, list[int]] = {}
    for number, item in enumerate(picture.objects):
        for text in item.texts if not item.ignored else ():
            meant.setdefault(text, []).append(number)
    for text in picture.absent if settings.absent else ():
        meant.setdefault(text, [])
    return [Question("detect", text, _GRAMMAR.write({text: n})) for text, n in meant.items()]


def _of_descriptions(picture: Picture, ledger: Ledger) -> list[Question]:
    said = Counter(text for item in picture.objects for text in item.texts)
    questions = []
    for number, item in enumerate(picture.objects):
        for text in item.texts if not item.ignored else ():
            if said[text] > 1:
                ledger.note(SHARED_TEXT, picture.filename)
                continue
            answer = _GRAMMAR.write({text: [number]})
            questions.append(Question(_form_of(text), object_mark(number), answer))
    return questions


def _form_of(text: str) -> str:
    """Which kind of description a text is: its question says what form the answer has."""
    if ". " in text:
        return "describe"
    return "phrase" if len(text.split()) <= _PHRASE else "sentence"


def _of_caption(caption: PictureCaption, picture: Picture) -> Question:
    numbers = {tuple(item.box): number for number, item in enumerate(picture.objects)}
    text, end = "", 0
    for (start, stop), boxes in zip(caption.spans, caption.boxes, strict=True):
        indices = [numbers[tuple(box)] for box in boxes]
        text += caption.text[end:start]
        text += _GRAMMAR.write_phrase(caption.text[start:stop].strip(), indices)
        end = stop
    is_long = len(caption.text.split()) >= _DETAILED
    return Question("detailed_caption" if is_long else "caption", "", text + caption.text[end:])


def row_of(
    picture: Picture,
    questions: Sequence[Question],
    settings: RetrievalSettings,
    generator: random.Random,
    ledger: Ledger,
) -> dict[str, Any] | None:
    """A row of docs/data.md; None where no question fits the candidates.

    Candidates are what is spoken of, then other annotated objects, then proposals that are none
    of them, as many as may be, in random order.
    """
    kept: list[Question] = []
    named: dict[int, None] = {}
    for question in questions:
        both = named | dict.fromkeys(question.objects)
        if len(both) > settings.candidates:
            ledger.note(TOO_MANY, picture.filename)
        else:
            kept, named = [*kept, question], both
    if not kept:
        return None
    others = [
        number
        for number, item in enumerate(picture.objects)
        if not item.ignored and number not in named
    ]
    generator.shuffle(others)
    shown = [*named, *others][: settings.candidates]
    boxes = [picture.objects[number].box for number in shown]
    boxes += _proposals(picture, settings, settings.candidates - len(shown))
    order = generator.sample(range(len(boxes)), len(boxes))
    place = {shown[old]: new for new, old in enumerate(order) if old < len(shown)}
    turns: list[dict[str, str]] = []
    for question in kept:
        given = settings.wordings[question.wording]
        wording = 0 if settings.one_wording else generator.randrange(len(given.wordings))
        text = given.ask(renumber_objects(question.asked, place), wording)
        turns.append({"from": "human", "value": text if turns else f"<image>\n{text}"})
        turns.append({"from": "gpt", "value": renumber_objects(question.answer, place)})
    return {
        "filename": settings.folder + picture.filename,
        "height": picture.height,
        "width": picture.width,
        "task": settings.task,
        "regions": [{"bbox": boxes[old]} for old in order],
        "conversations": turns,
    }


def _proposals(picture: Picture, settings: RetrievalSettings, most: int) -> list[list[float]]:
    """Proposals that are no annotated object, best first; a file's before those of the row."""
    found: np.ndarray = np.asarray(picture.proposals, np.float64).reshape(-1, 4)
    if settings.proposals is not None:
        of_file = settings.proposals.of(picture.identity, len(picture.objects) + 4 * most)
        sides = [picture.width, picture.height] * 2
        found = np.concatenate([np.clip(of_file.astype(np.float64), 0, sides), found])
    found = found[((found[:, 2:] - found[:, :2]) >= 1).all(1)]
    known = np.asarray([item.box for item in picture.objects], np.float64).reshape(-1, 4)
    new = found[~overlapping(found, known, SAME_PLACE)][:most]
    return new.round(2).tolist()
