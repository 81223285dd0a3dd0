"""Check annotations of any format before anything is trained on them.

What would stop or mislead training is an error, what the pipeline will drop and count, or what
merely looks odd, is a note. Both are counted by cause, the first few of each with their place.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llmdet.datasets.expressions import ExpressionPair, said_of
from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import BROKEN, Ledger
from llmdet.datasets.pictures import SIZE_TOLERANCE, check_picture, picture_path
from llmdet.datasets.rows import read_conversation, read_regions
from llmdet.errors import DataError, naming
from llmdet.prompts.expressions import clean_expression

EXAMPLES_PER_CAUSE = 10
_MAX_REMEMBERED = 5_000_000  # samples among which repetitions are looked for


@dataclass
class ValidationReport:
    """Problems by cause, and what was counted on the way."""

    errors: dict[str, list[str]] = field(default_factory=dict)  # cause -> first places
    notes: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # cause -> how often
    facts: Counter[str] = field(default_factory=Counter)  # images, boxes, captions ...

    def error(self, cause: str, where: str) -> None:
        """Record something that must be fixed."""
        self._add(self.errors, cause, where)

    def note(self, cause: str, where: str) -> None:
        """Record something that will be dropped, or deserves a look."""
        self._add(self.notes, cause, where)

    def _add(self, kind: dict[str, list[str]], cause: str, where: str) -> None:
        self.counts[cause] += 1
        examples = kind.setdefault(cause, [])
        if len(examples) < EXAMPLES_PER_CAUSE:
            examples.append(where)

    @property
    def ok(self) -> bool:
        return not self.errors

    def text(self) -> str:
        """The report for people."""
        lines = [", ".join(f"{count:,} {fact}" for fact, count in self.facts.items())]
        for title, kind in (("error", self.errors), ("note", self.notes)):
            for cause, examples in kind.items():
                lines.append(f"{title}: {cause}: {self.counts[cause]:,}")
                lines += [f"    {example}" for example in examples]
                hidden = self.counts[cause] - len(examples)
                lines += [f"    ... and {hidden:,} more"] if hidden else []
        return "\n".join(lines)


class ReportLedger(Ledger):
    """A ledger for readers that records every broken record as an error and reads on."""

    def __init__(self, report: ValidationReport) -> None:
        super().__init__(max_bad_rows=sys.maxsize)
        self._report = report

    def reject(self, error: DataError, record: str = "") -> None:
        self._report.error(BROKEN, str(error))

    def note(self, cause: str, where: str = "", number: int = 1) -> None:
        self._report.note(cause, where)


def validate(
    source: Source,
    report: ValidationReport,
    images: Path | None = None,
    pictures: int | None = None,
    picture_folders: Sequence[str] = (),
) -> None:
    """Check every sample of a source, opened with a :class:`ReportLedger` of the same report.

    Args:
        source: What a reader of :mod:`llmdet.datasets.formats` opened.
        report: Gets problems and counts.
        images: The folder of the pictures; None leaves them unopened.
        pictures: How many of them are decoded, spread over the data set; None decodes all.
        picture_folders: Further folders in which pictures may lie.
    """
    _check_categories(source, report)
    seen: set[int] = set()
    annotation_ids: set[int] = set()
    size_of = lru_cache(maxsize=1024)(check_picture)
    step = 1 if pictures is None else max(1, (source.total or 0) // max(pictures, 1))
    for number, sample in enumerate(source.samples):
        report.facts["images"] += 1
        report.facts["boxes"] += len(sample.instances)
        _check_size(sample, report)
        if images is not None and number % step == 0:
            report.facts["pictures opened"] += 1
            _check_picture(sample, images, picture_folders, size_of, report)
        for instance in sample.instances:
            _check_box(instance, sample, report)
        _check_text(sample, report)
        _check_conversation(sample, report)
        _check_expressions(sample, report)
        if report.facts["images"] <= _MAX_REMEMBERED:
            _check_repetition(sample, seen, annotation_ids, report)
    if report.facts["images"] > _MAX_REMEMBERED:
        report.note(f"repetitions looked for in the first {_MAX_REMEMBERED:,} images only", "")
    if not report.facts["images"]:
        report.error("there is no sample", "the annotations are empty")
    elif not report.facts["boxes"] and not report.facts["captions"]:
        report.error("there is nothing to learn from", "no sample has a box or a conversation")


def _check_categories(source: Source, report: ValidationReport) -> None:
    if source.categories is None:
        return
    report.facts["classes"] = len(source.categories)
    names = Counter(str(category["name"]).strip().lower() for category in source.categories)
    for name, count in names.items():
        if not name:
            report.error("class without a name", f"{count} of {len(source.categories)}")
        elif count > 1:
            report.error("classes that only differ in case or not at all", repr(name))


def _check_size(sample: Sample, report: ValidationReport) -> None:
    for name, value in (("width", sample.width), ("height", sample.height)):
        if value is None:
            report.error(f"no {name}", f"{sample.where}: field {name!r} is missing")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            report.error(f"wrong {name}", f"{sample.where}: field {name!r} is {value!r}")


def _check_picture(
    sample: Sample,
    images: Path,
    folders: Sequence[str],
    size_of: Callable[[Path], tuple[int, int]],
    report: ValidationReport,
) -> None:
    try:
        path = picture_path(str(images), sample.filename, sample.where, folders)
        with naming(sample.where):
            size = size_of(Path(path))
    except DataError as error:
        report.error("picture missing or broken", str(error))
        return
    width, height = sample.width, sample.height
    if not isinstance(width, int) or not isinstance(height, int):
        return
    annotated = (width, height)
    if max(abs(a - b) for a, b in zip(annotated, size, strict=True)) > SIZE_TOLERANCE:
        turned = " (turned by 90 degrees)" if annotated == size[::-1] else ""
        report.error(
            f"size differs from the picture's{turned}",
            f"{sample.where}: {sample.filename} is {size[0]}x{size[1]}, not "
            f"{sample.width}x{sample.height}",
        )


def _check_box(instance: Instance, sample: Sample, report: ValidationReport) -> None:
    x1, y1, x2, y2 = instance.bbox
    where = f"{sample.where}: box {instance.bbox} of {instance.phrase!r}"
    if instance.ignored:
        report.note("crowd or difficult object, not learnt", where)
        return
    if x2 < x1 or y2 < y1:
        report.error("box with negative size (corners swapped, or x, y, width, height?)", where)
    elif x2 - x1 < 1 or y2 - y1 < 1:
        report.note("box under 1 pixel, will be dropped", where)
    if not isinstance(sample.width, int) or not isinstance(sample.height, int):
        return
    size = f"{where}; the image is {sample.width}x{sample.height}"
    if x1 >= sample.width or y1 >= sample.height or x2 <= 0 or y2 <= 0:
        report.note("box outside the image, will be dropped", size)
    elif min(x1, y1) < -1 or x2 > sample.width + 1 or y2 > sample.height + 1:
        report.note("box reaches beyond the image, will be clipped", size)


def _check_text(sample: Sample, report: ValidationReport) -> None:
    caption = sample.caption
    if caption is None:
        return
    if not sample.instances:
        report.note("sentence without boxes", sample.where)
    for instance in sample.instances:
        words = [caption[start:end] for start, end in instance.spans or []]
        where = f"{sample.where}: {instance.spans} is {words}"
        if not all(any(map(str.isalnum, word)) for word in words):
            report.error("span without a word", where)
        elif any(_cuts_a_word(caption, *span) for span in instance.spans or []):
            report.note("span begins or ends inside a word", where)
        # Several phrases are alternatives, or the parts that several spans point to.
        phrases = instance.phrase if isinstance(instance.phrase, list) else [instance.phrase]
        named = {_folded(phrase) for phrase in [*phrases, " ".join(map(str, phrases))]}
        if named.isdisjoint(map(_folded, [*words, " ".join(words)])):
            report.note("phrase differs from the words its spans point to", f"{where}: {phrases}")


def _cuts_a_word(text: str, start: int, end: int) -> bool:
    def inside(position: int) -> bool:
        return 0 < position < len(text) and text[position - 1 : position + 1].isalnum()

    return inside(start) or inside(end)


def _folded(phrase: object) -> str:
    return " ".join(str(phrase).lower().split()).strip(".,;:!?")


def _check_conversation(sample: Sample, report: ValidationReport) -> None:
    fields = Fields(sample.fields, sample.where)
    try:
        regions = read_regions(fields, (sample.height, sample.width))
        conversation = read_conversation(fields, len(regions))
    except DataError as error:
        report.error("wrong conversation", str(error))
        return
    if conversation is None:
        return
    report.facts["captions"] += 1
    if len(regions):
        report.facts["regions spoken of"] += len(regions)
    if any(turn.learned and not turn.text.strip() for turn in conversation.turns):
        report.error("empty caption", f"{sample.where}: field 'conversations'")


def _check_expressions(sample: Sample, report: ValidationReport) -> None:
    if sample.pairs is None:
        return
    report.facts.update(said_of(sample.pairs))
    if not sample.pairs:
        report.note("row of expressions without any", f"{sample.where}: field 'pairs' is empty")
    for pair in sample.pairs:
        _check_pair(pair, f"{sample.where}: pairs.{pair.source}, boxes {pair.boxes}", report)


def _check_pair(pair: ExpressionPair, where: str, report: ValidationReport) -> None:
    said, denied = (set(map(clean_expression, t)) for t in (pair.positives, pair.negatives))
    if "" in said or "" in denied:
        report.note("expression without a word, will be left out", where)
    for text in sorted((said & denied) - {""}):
        report.error(
            "expression that is positive and negative of the same boxes", f"{where}: {text!r}"
        )
    if not said - {""} and not pair.category:
        report.note("pair with neither a positive expression nor a category", where)
    if pair.relation == "single" and len(pair.boxes) > 1:
        report.note("relation 'single' with several boxes", where)


def _check_repetition(
    sample: Sample, seen: set[int], annotation_ids: set[int], report: ValidationReport
) -> None:
    key = hash((sample.filename, sample.caption))
    if key in seen:
        report.note("the same picture and text again", f"{sample.where}: {sample.filename}")
    seen.add(key)
    for instance in sample.instances:
        identity = instance.extra.get("id")
        if identity is None:
            continue
        if hash(identity) in annotation_ids:
            report.error("annotation id used twice", f"{sample.where}: annotation id {identity!r}")
        annotation_ids.add(hash(identity))
