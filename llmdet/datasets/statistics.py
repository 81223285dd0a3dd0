"""What a data set contains, in numbers: one pass over the annotations, bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdet.datasets.expressions import said_of
from llmdet.datasets.formats.samples import Sample
from llmdet.datasets.rows import ROLES

QUANTILES = (0.5, 0.9, 0.99)
#: Free text may name millions of things; counts of rarer ones are dropped beyond this many.
MOST_PHRASES = 1_000_000
_MOST_LISTED = 20
_MOST_BARS = 50
_SIZES = ((32**2, "small"), (96**2, "medium"))  # COCO's limits of box area in pixels


@dataclass
class Distribution:
    """How often each whole number was met."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, value: int) -> None:
        self.counts[value] += 1

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        return sum(value * count for value, count in self.counts.items()) / max(self.total, 1)

    def quantile(self, fraction: float) -> int:
        """The smallest value that at least this fraction of the values does not exceed."""
        wanted, seen = fraction * self.total, 0
        for value in sorted(self.counts):
            seen += self.counts[value]
            if seen >= wanted:
                return value
        return 0

    def summary(self) -> dict[str, float]:
        """Number, mean, least, quantiles and largest."""
        return {
            "number": self.total,
            "mean": round(self.mean, 2),
            "min": min(self.counts, default=0),
            **{f"p{round(100 * q)}": self.quantile(q) for q in QUANTILES},
            "max": max(self.counts, default=0),
        }


@dataclass
class Statistics:
    """Counts of one data set."""

    facts: Counter[str] = field(default_factory=Counter)
    boxes_per_image: Distribution = field(default_factory=Distribution)
    phrases_per_text: Distribution = field(default_factory=Distribution)
    words_per_phrase: Distribution = field(default_factory=Distribution)
    tokens_per_text: Distribution = field(default_factory=Distribution)
    words_per_caption: Distribution = field(default_factory=Distribution)
    box_sizes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)  # class or phrase -> boxes

    def distributions(self) -> dict[str, Distribution]:
        """Those that hold anything, by title."""
        titled = {
            "boxes per image": self.boxes_per_image,
            "phrases per text": self.phrases_per_text,
            "words per phrase": self.words_per_phrase,
            "tokens per text": self.tokens_per_text,
            "words per caption": self.words_per_caption,
        }
        return {title: values for title, values in titled.items() if values.total}

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file."""
        return {
            "facts": dict(self.facts),
            "box sizes": dict(self.box_sizes),
            **{title: values.summary() for title, values in self.distributions().items()},
            "boxes per class or phrase": dict(self.classes.most_common()),
        }

    def table(self) -> str:
        """The numbers for people."""
        facts = ", ".join(f"{count:,} {fact}" for fact, count in self.facts.items())
        sizes = ", ".join(f"{count:,} {size}" for size, count in self.box_sizes.most_common())
        names = ("number", "mean", "min", *(f"p{round(100 * q)}" for q in QUANTILES), "max")
        lines = [facts, f"boxes by area: {sizes}", f"{'':20}" + "".join(f"{n:>12}" for n in names)]
        for title, values in self.distributions().items():
            summary = values.summary()
            lines.append(f"{title:20}" + "".join(f"{summary[name]:>12,}" for name in names))
        lines.append(f"{len(self.classes):,} classes or phrases; the most frequent:")
        lines += [f"{n:>12,}  {name}" for name, n in self.classes.most_common(_MOST_LISTED)]
        return "\n".join(lines)


def collect(
    samples: Iterable[Sample], count_tokens: Callable[[str], int] | None = None
) -> Statistics:
    """Count what the samples contain.

    Args:
        samples: What a reader of :mod:`llmdet.datasets.formats` yields.
        count_tokens: Number of tokens of a text; None leaves token counts out.
    """
    statistics = Statistics()
    for sample in samples:
        _add_sample(statistics, sample)
        if count_tokens is not None:
            for text in _texts(sample):
                statistics.tokens_per_text.add(count_tokens(text))
        if len(statistics.classes) > 2 * MOST_PHRASES:
            statistics.classes = Counter(dict(statistics.classes.most_common(MOST_PHRASES)))
            statistics.facts["times that counts of rare phrases were dropped"] += 1
    return statistics


def _texts(sample: Sample) -> list[str]:
    """What the text encoder may read of a sample: its sentence, or the expressions of its boxes."""
    if sample.pairs is not None:
        return [text for pair in sample.pairs for text in pair.positives]
    return [] if sample.caption is None else [sample.caption]


def _add_sample(statistics: Statistics, sample: Sample) -> None:
    learnt = [instance for instance in sample.instances if not instance.ignored]
    statistics.facts["images"] += 1
    statistics.facts["boxes"] += len(learnt)
    statistics.facts["crowd or difficult boxes"] += len(sample.instances) - len(learnt)
    statistics.facts["images without boxes"] += not learnt
    statistics.boxes_per_image.add(len(learnt))
    named = set()
    for instance in learnt:
        phrase = instance.phrase if isinstance(instance.phrase, str) else instance.phrase[0]
        statistics.classes[phrase.lower()] += 1
        named.add(str(instance.spans or instance.label))
        if sample.caption is not None:
            statistics.words_per_phrase.add(len(phrase.split()))
        statistics.box_sizes[_size(instance.bbox)] += 1
    if sample.caption is not None:
        statistics.phrases_per_text.add(len(named))
    if sample.pairs is not None:
        statistics.facts.update(said_of(sample.pairs))
        for text in _texts(sample):
            statistics.words_per_phrase.add(len(text.split()))
    turns = sample.fields.get("conversations") or []
    answers = [turn for turn in turns if ROLES.get(turn.get("from")) == "assistant"]
    if answers:
        statistics.facts["captions"] += 1
        words = sum(len(str(turn.get("value", "")).split()) for turn in answers)
        statistics.words_per_caption.add(words)


def _size(box: list[float]) -> str:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return next((name for limit, name in _SIZES if area < limit), "large")


def plot(statistics: Statistics, path: Path) -> None:
    """Draw every distribution and the class frequencies into one picture."""
    from matplotlib.figure import Figure

    titled = statistics.distributions()
    figure = Figure(figsize=(5 * (len(titled) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(titled) + 1, squeeze=False)[0]
    for axis, (title, values) in zip(axes, titled.items(), strict=False):
        numbers = sorted(values.counts)
        weights = [values.counts[number] for number in numbers]
        axis.hist(numbers, bins=_bins(numbers), weights=weights)
        axis.set(title=title, ylabel="number")
    frequencies = sorted(statistics.classes.values(), reverse=True)
    axes[-1].plot(range(1, len(frequencies) + 1), frequencies)
    axes[-1].set(title="boxes of a class or phrase", xlabel="rank")
    if frequencies:  # nothing cannot be shown on a logarithmic scale
        axes[-1].set(xscale="log", yscale="log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bins(numbers: list[int]) -> list[float]:
    """Edges half way between whole numbers, so that every bar covers as many of them."""
    step = -(-(numbers[-1] - numbers[0] + 1) // _MOST_BARS)
    return [edge - 0.5 for edge in range(numbers[0], numbers[-1] + step + 1, step)]
