"""RecapD: detailed descriptions of regions, in the words of a vision-language model (RegionGPT).

A picture is described as a whole; then each of its objects, seen close up, with its class and that
description as context; what does not fit its close-up is left out; what remains becomes a
conversation (arXiv 2403.02330, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.chat import ChatModel, ask
from llmdet.data_engines.annotations import (
    Annotations,
    close_ups,
    largest_instances,
    name_of,
)
from llmdet.data_engines.caption_rules import accepted_caption
from llmdet.data_engines.drawing import generator_of
from llmdet.data_engines.flow import Call, Steps, identities
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.data_engines.questions import Question, Reply, accepted_replies, left_out
from llmdet.data_engines.recapd_prompts import (
    global_prompt,
    question,
    region_prompt,
)
from llmdet.data_engines.runs import WHOLE, Run, by_name, journal_of
from llmdet.data_engines.similarity import ImageTextSimilarity, Pair, SimilarityFilter
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import read_picture
from llmdet.datasets.row_targets import UNIFORM_PROMPT
from llmdet.errors import naming

#: Counted up whenever the same answers would give other rows.
VERSION = 1
#: Who is asked, and what compares.
CAPTIONER, FILTER = "captioner", "filter"
UNLIKE = "description unlike its region"
TOO_SMALL = "region too small to be described"
NOTHING_LEFT = "picture without a described region"

Record = dict[str, Any]


@dataclass(frozen=True)
class RecapSettings:
    """What is asked, and which answers are taken.

    Attributes:
        regions: regions of a picture to be described, the largest first.
        min_side: a region's shorter side in pixels; smaller ones show nothing.
        attempts: how often a question is asked before it stays without an answer.
        min_global_words: the least number of words about a whole picture.
        min_words: the least number of words about a region.
        seed: draws the wordings.
    """

    regions: int = 20
    min_side: int = 16
    attempts: int = 3
    min_global_words: int = 20
    min_words: int = 10
    seed: int = 0


@dataclass(frozen=True)
class RecapOutput:
    """What becomes of the descriptions; it does not decide what is asked.

    Attributes:
        keep: which descriptions fit their close-ups.
        global_turn: conversations begin with the description of the whole picture.
    """

    keep: SimilarityFilter = field(default_factory=SimilarityFilter)
    global_turn: bool = False


@dataclass(frozen=True)
class RecapModels:
    """Who describes, and what compares descriptions with close-ups; None compares nothing."""

    captioner: ChatModel
    similarity: ImageTextSimilarity | None

    @property
    def roles(self) -> dict[str, Any]:
        """Role -> model."""
        compared = {} if self.similarity is None else {FILTER: self.similarity}
        return {CAPTIONER: self.captioner, **compared}


def recaption(
    annotations: Annotations,
    out: Path,
    models: RecapModels,
    settings: RecapSettings,
    output: RecapOutput,
    ledger: Ledger,
    run: Run = WHOLE,
) -> int:
    """Write conversations about the regions of annotations as JSONL rows.

    Descriptions are kept in ``OUT.partial`` until all are there; a second call with the same
    annotations, models and settings goes on from there.

    Args:
        annotations: pictures with boxes and classes.
        out: the JSONL file to write.
        models: who describes and compares.
        settings: what to ask.
        output: what to keep, and how.
        ledger: counts what is left out, by cause.
        run: how pictures go through, and which.

    Returns:
        The number of rows.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a picture is broken and ``ledger`` permits no more of them.
    """
    source = annotations.open(ledger)
    decided = {
        "recapd engine": VERSION,
        **annotations.identity,
        "shard": str(run.shard),
        **identities(models.roles),
        **by_name(settings),
    }
    journal = journal_of(out, decided)
    program = RecapProgram(annotations.images, settings, compare=models.similarity is not None)
    run.take(source.samples, source.total, program, models.roles, journal, ledger)
    least = least_similarity(journal, output.keep)
    return journal.finish(
        out, ledger, rows_of=lambda record: rows_of(record, least, output, ledger)
    )


@dataclass(frozen=True)
class RecapProgram:
    """Turns a sample into a record: the picture's description and those of its regions.

    Attributes:
        images: the folder of the pictures.
        settings: what to ask.
        compare: whether descriptions are compared with their close-ups.
    """

    images: Path
    settings: RecapSettings
    compare: bool

    def __call__(self, sample: Sample) -> Steps:
        """Ask about the picture, then about all its regions at the same time."""
        with naming(sample.where):
            image = read_picture(self.images / sample.filename)
        regions, notes = self._regions(sample, image)
        if not regions:
            return Outcome(None, notes=(*notes, (NOTHING_LEFT, sample.where)))
        (whole,) = yield from accepted_replies(
            [self._about_picture(sample, image)], self.settings.attempts
        )
        if whole.fault:
            return Outcome(None, notes=(*notes, *left_out([whole], sample.where)))
        questions = [
            self._about_region(sample, number, region, whole.value)
            for number, region in enumerate(regions)
        ]
        replies = yield from accepted_replies(questions, self.settings.attempts)
        notes += left_out(replies, sample.where)
        described = [
            (region, reply)
            for region, reply in zip(regions, replies, strict=True)
            if not reply.fault
        ]
        scores = yield [
            Call(FILTER, Pair(region.close_up, reply.value))
            for region, reply in described
            if self.compare
        ]
        record = {
            "filename": sample.filename,
            "height": image.height,
            "width": image.width,
            "where": sample.where,
            "global_caption": whole.value,
            "regions": _described_regions(described, scores),
        }
        return Outcome(record, notes=notes)

    def _regions(
        self, sample: Sample, image: Image.Image
    ) -> tuple[list[_Region], tuple[tuple[str, str], ...]]:
        """The regions to be described, and notes about those that are too small."""
        learnt = [instance for instance in sample.instances if not instance.ignored]
        largest = largest_instances(learnt, self.settings.regions)
        regions = [
            _Region(instance, _inside(instance.bbox, image.size), close_up)
            for instance, close_up in close_ups(image, largest, self.settings.min_side)
        ]
        return regions, ((TOO_SMALL, sample.where),) * (len(largest) - len(regions))

    def _about_picture(self, sample: Sample, image: Image.Image) -> Question:
        read = partial(accepted_caption, min_words=self.settings.min_global_words)
        prompt = global_prompt(generator_of(self.settings.seed, "picture", sample.filename))
        return Question(CAPTIONER, ask(prompt, image), read, "picture's description")

    def _about_region(self, sample: Sample, number: int, region: _Region, context: str) -> Question:
        read = partial(accepted_caption, min_words=self.settings.min_words)
        generator = generator_of(self.settings.seed, "region", sample.filename, number)
        prompt = region_prompt(generator, name_of(region.instance), context)
        return Question(CAPTIONER, ask(prompt, region.close_up), read, "region's description")


@dataclass(frozen=True)
class _Region:
    instance: Instance
    box: list[float]  # x1, y1, x2, y2 in pixels, inside the picture
    close_up: Image.Image


def _inside(box: list[float], size: tuple[int, int]) -> list[float]:
    x1, y1, x2, y2 = box
    return [max(x1, 0), max(y1, 0), min(x2, size[0]), min(y2, size[1])]


def _described_regions(described: list[tuple[_Region, Reply]], scores: list[float]) -> list[Record]:
    regions: list[Record] = []
    for number, (region, reply) in enumerate(described):
        one = {
            "bbox": region.box,
            "category": name_of(region.instance),
            "caption": reply.value,
        }
        if region.instance.mask is not None:
            one["segmentation"] = region.instance.mask
        if scores:
            one["similarity"] = scores[number]
        regions.append(one)
    return regions


def least_similarity(journal: Journal, keep: SimilarityFilter) -> float | None:
    """What a description must reach to be kept; None where nothing was compared."""
    found = [
        region["similarity"]
        for outcome in journal.outcomes()
        if outcome.row is not None
        for region in outcome.row["regions"]
        if "similarity" in region
    ]
    return keep.least(found) if found else None


def rows_of(
    record: Record, least: float | None, output: RecapOutput, ledger: Ledger
) -> Iterator[Record]:
    """The row of a picture: its regions, and a conversation about them.

    Args:
        record: of a :class:`RecapProgram`.
        least: from :func:`least_similarity`.
        output: whether the whole picture is spoken of.
        ledger: counts descriptions that are left out.
    """
    where = record["where"]
    regions = [r for r in record["regions"] if least is None or r["similarity"] >= least]
    if len(regions) < len(record["regions"]):
        ledger.note(UNLIKE, where, len(record["regions"]) - len(regions))
    if not regions:
        ledger.note(NOTHING_LEFT, where)
        return
    row = {key: value for key, value in record.items() if key != "where"}
    yield row | {"regions": regions, "conversations": _conversation(record, regions, output)}


def _conversation(
    record: Mapping[str, Any], regions: list[Record], output: RecapOutput
) -> list[dict[str, str]]:
    said = [(UNIFORM_PROMPT, record["global_caption"])] if output.global_turn else []
    for number, region in enumerate(regions):
        generator = generator_of(0, "question", record["filename"], region["bbox"])
        said.append((question(generator, number), region["caption"]))
    first, answer = said[0]
    said[0] = (first if first.startswith("<image>") else f"<image>\n{first}", answer)
    return [
        {"from": who, "value": text}
        for turn in said
        for who, text in zip(("human", "gpt"), turn, strict=True)
    ]
