"""Caption a data set sample by sample, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from PIL import Image, ImageOps, UnidentifiedImageError

from llmdet.datasets.captioning.backends import Captioner, Question
from llmdet.datasets.captioning.rules import (
    MIN_CAPTION_WORDS,
    caption_fault,
    clean_caption,
    clean_phrase,
    phrase_fault,
)
from llmdet.datasets.formats.rows import label_map_path
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.formats.writing import (
    atomic_file,
    detection_row,
    grounding_row,
    label_map,
    name_the_classes,
    readable_name,
)
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.rows import UNIFORM_PROMPT
from llmdet.errors import ConfigError, DataError

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
        batch_size: questions per call of the model.
    """

    caption_prompt: str = CAPTION_PROMPT
    phrase_prompt: str = PHRASE_PROMPT
    regions: int = 0
    attempts: int = 3
    min_words: int = MIN_CAPTION_WORDS
    batch_size: int = 8


@dataclass
class _Task:
    """A question that still needs an answer, and where the answer goes."""

    image: Image.Image
    prompt: str
    kind: str  # "caption" or "phrase"
    accept: Callable[[str], str | None]  # takes an answer, returns its fault
    fault: str = ""


@dataclass
class _Work:
    """One sample on its way."""

    sample: Sample
    tasks: list[_Task] = field(default_factory=list)
    broken: DataError | None = None


def caption_dataset(
    source: Source,
    images: Path,
    out: Path,
    captioner: Captioner,
    settings: CaptionSettings,
    ledger: Ledger,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> int:
    """Write the samples of a source as JSONL rows with captions.

    Finished rows are kept in ``OUT.partial``; a second call with the same settings goes on from
    there. A sample whose caption is not accepted after all attempts is written without one, and
    counted.

    Args:
        source: What a reader of :mod:`llmdet.datasets.formats` opened.
        images: The folder of the pictures.
        out: The JSONL file to write.
        captioner: The model.
        settings: What to ask.
        ledger: Counts rejected answers and broken pictures.
        progress: Wraps the stream of samples.

    Returns:
        The number of rows.

    Raises:
        ConfigError: ``OUT.partial`` was begun with other settings.
        DataError: A picture is broken and ``ledger`` permits no more of them.
    """
    partial = out.with_name(out.name + ".partial")
    done, broken = _begin(partial, settings)
    for problem in broken:
        ledger.reject(DataError(problem))
    samples = islice(progress(source.samples), done, None)
    with partial.open("ab") as file:
        while chunk := list(islice(samples, settings.batch_size)):
            works = [_prepare(sample, images, settings) for sample in chunk]
            for work in works:
                if work.broken is not None:
                    ledger.reject(work.broken)
            _answer_all([task for work in works for task in work.tasks], captioner, settings)
            for work in works:
                file.write(orjson.dumps(_record(work, source, settings)) + b"\n")
            # A row that was paid for must survive the machine.
            file.flush()
            os.fsync(file.fileno())
    return _finish(partial, out, source, ledger)


def _begin(partial: Path, settings: CaptionSettings) -> tuple[int, list[str]]:
    """Begin or continue the partial file; returns how many samples are done, and broken ones."""
    mine = orjson.dumps({"settings": asdict(settings)})
    partial.parent.mkdir(parents=True, exist_ok=True)
    if not partial.exists():
        partial.write_bytes(mine + b"\n")
        return 0, []
    whole, broken = 0, []
    with partial.open("r+b") as file:
        first = file.readline()
        if first != mine + b"\n":
            raise ConfigError(
                f"{partial} was begun with other settings. Repeat them to go on, or remove it."
            )
        end = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += 1
            record = orjson.loads(line)
            if record["row"] is None:
                broken.append(record["broken"])
            end += len(line)
        file.truncate(end)  # a row cut short by the end of the last run
    return whole, broken


def _prepare(sample: Sample, images: Path, settings: CaptionSettings) -> _Work:
    work = _Work(sample)
    path = images / sample.filename
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        work.broken = DataError(f"{sample.where}: the picture {path} cannot be read ({error})")
        return work
    learnt = [instance for instance in sample.instances if not instance.ignored]
    names = ", ".join(sorted({_name(instance) for instance in learnt}))
    prompt = settings.caption_prompt.replace("{names}", names)
    work.tasks.append(_Task(image, prompt, "caption", _caption_taker(sample, settings)))
    if settings.regions and learnt:
        if sample.caption is None:
            sample.caption = name_the_classes(learnt)
        for instance in sorted(learnt, key=_area, reverse=True)[: settings.regions]:
            prompt = settings.phrase_prompt.replace("{name}", _name(instance))
            part = _region(image, instance.bbox)
            if part is not None:
                work.tasks.append(_Task(part, prompt, "phrase", _phrase_taker(instance)))
    return work


def _caption_taker(sample: Sample, settings: CaptionSettings) -> Callable[[str], str | None]:
    def accept(answer: str) -> str | None:
        cleaned = clean_caption(answer)
        fault = caption_fault(answer, cleaned, settings.min_words)
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


def _answer_all(tasks: Sequence[_Task], captioner: Captioner, settings: CaptionSettings) -> None:
    """Ask every question until its answer is accepted or the attempts are used up."""
    waiting = list(tasks)
    for attempt in range(settings.attempts):
        for start in range(0, len(waiting), settings.batch_size):
            group = waiting[start : start + settings.batch_size]
            questions = [Question(task.image, task.prompt, attempt) for task in group]
            answers = captioner.answer(questions)
            for task, answer in zip(group, answers, strict=True):
                task.fault = task.accept(answer) or ""
        waiting = [task for task in waiting if task.fault]


def _record(work: _Work, source: Source, settings: CaptionSettings) -> dict[str, Any]:
    """A line of the partial file: the row, None for a broken picture, and what went wrong."""
    if work.broken is not None:
        return {"row": None, "broken": str(work.broken)}
    kept = [instance for instance in work.sample.instances if not instance.ignored]
    as_labels = source.categories is not None and not settings.regions
    row, _ = (detection_row if as_labels else grounding_row)(work.sample, kept)
    faults = [f"{task.kind} {task.fault}, left out" for task in work.tasks if task.fault]
    return {"row": row, "faults": faults, "where": work.sample.where}


def _finish(partial: Path, out: Path, source: Source, ledger: Ledger) -> int:
    """Copy the rows to their place, count what happened in this and earlier runs."""
    count = 0
    with partial.open("rb") as file, atomic_file(out) as rows:
        next(file)
        for line in file:
            record = orjson.loads(line)
            if record["row"] is None:
                continue
            for fault in record["faults"]:
                ledger.note(fault, record["where"])
            rows.write(orjson.dumps(record["row"], option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    if source.categories is not None:
        with atomic_file(label_map_path(out)) as file:
            file.write(label_map(source.categories, out))
    partial.unlink()
    return count
