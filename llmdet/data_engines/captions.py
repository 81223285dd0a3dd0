"""Captions for any annotated data set: the engine behind tools/caption_dataset.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from llmdet.chat import ChatModel, ChatRequest, ask
from llmdet.data_engines.caption_rules import (
    MIN_CAPTION_WORDS,
    caption_fault,
    clean_caption,
    clean_phrase,
    phrase_fault,
)
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.data_engines.steps import Pace, Question, ask_until_accepted, faults, run_step
from llmdet.datasets.formats import ReadOptions, identity, open_source
from llmdet.datasets.formats.rows import label_map_path
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.formats.writing import (
    detection_row,
    grounding_row,
    label_map,
    name_the_classes,
    readable_name,
)
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import read_picture
from llmdet.datasets.row_targets import UNIFORM_PROMPT
from llmdet.errors import DataError
from llmdet.utils.whole_files import whole_file

#: Counted up whenever the same answers would give other rows.
VERSION = 1
CAPTION_PROMPT = (
    "Describe this image in detail in one paragraph of at least 100 words: the objects, their "
    "number, colour, material and state, where they are in relation to each other, and the "
    "background. State only what can be seen; do not guess at purposes, feelings or causes."
)
PHRASE_PROMPT = (
    "This is a part of a larger picture. Describe the {name} at its centre in a phrase of at most "
    "ten words, such as 'a red wooden chair with a torn seat'. Answer with the phrase alone."
)
_REGION_MARGIN = 0.2  # of the box's sides, shown around it


@dataclass(frozen=True)
class CaptionSettings:
    """What is asked, and which answers are taken.

    Attributes:
        caption_prompt: asked of every image; ``{names}`` stands for what is annotated in it.
        phrase_prompt: asked of every region; ``{name}`` stands for its class or words.
        regions: regions per image to be described, the largest first; 0 describes none. With
            regions, rows are in grounding form.
        attempts: how often a question is asked before the sample goes without an answer.
        min_words: the least number of words of a cleaned caption.
    """

    caption_prompt: str = CAPTION_PROMPT
    phrase_prompt: str = PHRASE_PROMPT
    regions: int = 0
    attempts: int = 3
    min_words: int = MIN_CAPTION_WORDS


@dataclass(frozen=True)
class Annotations:
    """What is to be captioned.

    Attributes:
        path: an annotation file, or the folder of a format that has one file per image.
        images: the folder of the pictures.
        source_format: a key of :data:`llmdet.datasets.formats.READERS`, where the name of the
            file does not tell it.
        options: what the annotations themselves do not say.
    """

    path: Path
    images: Path
    source_format: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)


def caption_dataset(
    annotations: Annotations,
    out: Path,
    chat: ChatModel,
    settings: CaptionSettings,
    ledger: Ledger,
    pace: Pace,
    progress: Callable[[int, int | None], Callable[[int], object]] | None = None,
) -> int:
    """Write the samples of annotations as JSONL rows with captions.

    Finished rows are kept in ``OUT.partial``; a second call with the same annotations, model and
    settings goes on from there. A sample whose caption is not accepted after all attempts is
    written without one, and counted.

    Args:
        annotations: what to caption.
        out: the JSONL file to write.
        chat: the model.
        settings: what to ask.
        ledger: counts rejected answers and broken pictures.
        pace: samples per call, and calls at a time.
        progress: given the number of samples of earlier runs and, where it is known, of all;
            returns what is called with the number of samples that have been written.

    Returns:
        The number of rows.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a picture is broken and ``ledger`` permits no more of them.
    """
    source = open_source(annotations.path, annotations.source_format, annotations.options, ledger)
    journal = Journal(out.with_name(f"{out.name}.partial"), decided_by(annotations, chat, settings))
    engine = CaptionEngine(
        annotations.images,
        chat,
        settings,
        as_labels=source.categories is not None and not settings.regions,
        batch_size=pace.batch_size,
    )
    written = progress(journal.done, source.total) if progress else lambda count: None
    run_step(source.samples, engine, journal, ledger, pace, written)
    if source.categories is not None:  # before the rows, whose file says that all is there
        with whole_file(label_map_path(out)) as file:
            file.write(label_map(source.categories, out))
    return journal.finish(out, ledger)


def decided_by(
    annotations: Annotations, chat: ChatModel, settings: CaptionSettings
) -> dict[str, object]:
    """All on which the rows depend, under names that a sentence can show."""
    return {
        "caption engine": VERSION,
        **identity(annotations.path, annotations.source_format, annotations.options),
        "images": str(annotations.images.resolve()),
        **chat.identity,
        **{name.replace("_", " "): value for name, value in asdict(settings).items()},
    }


@dataclass(frozen=True)
class CaptionEngine:
    """Turns samples into rows with captions.

    Attributes:
        images: the folder of the pictures.
        chat: the model.
        settings: what to ask.
        as_labels: rows are in detection form, else in grounding form.
        batch_size: questions per call of the model.
    """

    images: Path
    chat: ChatModel
    settings: CaptionSettings
    as_labels: bool
    batch_size: int

    def __call__(self, samples: Sequence[Sample]) -> list[Outcome]:
        """One outcome for each sample; the questions of all of them are asked together."""
        prepared = [self._questions(sample) for sample in samples]
        questions = [q for of_sample in prepared if isinstance(of_sample, list) for q in of_sample]
        ask_until_accepted(questions, self.chat, self.settings.attempts, self.batch_size)
        return [
            Outcome(None, problem=of_sample)
            if isinstance(of_sample, str)
            else Outcome(self._row(sample), notes=faults(of_sample, sample.where))
            for sample, of_sample in zip(samples, prepared, strict=True)
        ]

    def _questions(self, sample: Sample) -> list[Question] | str:
        """What is asked of a sample, or what is wrong with its picture."""
        path = self.images / sample.filename
        try:
            image = read_picture(path)
        except DataError as error:
            return f"{sample.where}: {error}"
        learnt = [instance for instance in sample.instances if not instance.ignored]
        names = ", ".join(sorted({_name(instance) for instance in learnt}))
        prompt = self.settings.caption_prompt.replace("{names}", names)
        accept = _caption_taker(sample, self.settings.min_words)
        questions = [Question(_asker(prompt, image), accept, "caption")]
        if self.settings.regions and learnt:
            if sample.caption is None:
                sample.caption = name_the_classes(learnt)
            for instance in sorted(learnt, key=_area, reverse=True)[: self.settings.regions]:
                prompt = self.settings.phrase_prompt.replace("{name}", _name(instance))
                part = _region(image, instance.bbox)
                if part is not None:
                    accept = _phrase_taker(instance)
                    questions.append(Question(_asker(prompt, part), accept, "phrase"))
        return questions

    def _row(self, sample: Sample) -> dict[str, object]:
        kept = [instance for instance in sample.instances if not instance.ignored]
        row, _ = (detection_row if self.as_labels else grounding_row)(sample, kept)
        return row


def _asker(prompt: str, image: Image.Image) -> Callable[[float], ChatRequest]:
    return lambda temperature: ask(prompt, image, temperature=temperature)


def _caption_taker(sample: Sample, min_words: int) -> Callable[[str], str | None]:
    def accept(answer: str) -> str | None:
        cleaned = clean_caption(answer)
        fault = caption_fault(answer, cleaned, min_words)
        if fault is None:
            sample.fields["conversations"] = [
                {"from": "human", "value": UNIFORM_PROMPT},
                {"from": "gpt", "value": cleaned},
            ]
        return fault

    return accept


def _phrase_taker(instance: Instance) -> Callable[[str], str | None]:
    def accept(answer: str) -> str | None:
        cleaned = clean_phrase(answer)
        fault = phrase_fault(answer, cleaned)
        if fault is None:
            instance.phrase = cleaned
        return fault

    return accept


def _name(instance: Instance) -> str:
    phrase = instance.phrase
    return readable_name(phrase if isinstance(phrase, str) else phrase[0])


def _area(instance: Instance) -> float:
    x1, y1, x2, y2 = instance.bbox
    return (x2 - x1) * (y2 - y1)


def _region(image: Image.Image, box: list[float]) -> Image.Image | None:
    """The box with a margin around it, None where it lies outside the picture."""
    x1, y1, x2, y2 = box
    dx, dy = _REGION_MARGIN * (x2 - x1), _REGION_MARGIN * (y2 - y1)
    left, top = max(0, round(x1 - dx)), max(0, round(y1 - dy))
    right, bottom = min(image.width, round(x2 + dx)), min(image.height, round(y2 + dy))
    if right - left < 1 or bottom - top < 1:
        return None
    return image.crop((left, top, right, bottom))
