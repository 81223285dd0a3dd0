"""A check-up before training: files, prompts, samples, and whether the model learns from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from llmdet.datasets.formats import open_source
from llmdet.datasets.formats.samples import ReadOptions
from llmdet.datasets.inspection import (
    SeenSample,
    build_dataset,
    class_names,
    leaf_datasets,
    seen_sample,
    spread_indices,
)
from llmdet.datasets.ledger import BROKEN, dropped_totals
from llmdet.datasets.storage.objects import is_url
from llmdet.datasets.storage.shards import is_shards
from llmdet.datasets.validate import ReportLedger, ValidationReport, validate
from llmdet.engine.overfit import OverfitResult, overfit
from llmdet.errors import DataError, LLMDetError
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.tokenizers import MAX_TOKENS, load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.registry import MODELS
from llmdet.utils.build import checked_builds

_LISTED_CLASSES = 30
_COUNTED_TEXTS = 2000
_SHOWN_PROBLEMS = 10


@dataclass
class Findings:
    """What the check-up found so far; everything is printed as soon as it is known.

    Attributes:
        write_line: prints a line.
        progress: wraps what takes long; it is given the number of steps where it is known.
    """

    write_line: Callable[[str], None]
    progress: Callable[[Iterable[Any], int | None], Iterable[Any]] = lambda steps, total: steps
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Record something that must be fixed before training."""
        self.problems.append(text)
        self.write_line(f"  PROBLEM {text}")


def check_split(config: Config, split: str, findings: Findings, pictures: int) -> Any:
    """Build the data sets of a loader and check their files.

    Args:
        config: The config.
        split: "train", "val" or "test".
        findings: Gets what is wrong.
        pictures: How many pictures of each file are opened and measured.

    Returns:
        The data set, None where it cannot be built.
    """
    try:
        with checked_builds():
            dataset = build_dataset(config, split)
    except (LLMDetError, FileNotFoundError) as error:
        findings.problem(f"{split}_dataloader: {error}")
        return None
    for leaf in leaf_datasets(dataset):
        findings.write_line(f"{split}: {type(leaf).__name__} {getattr(leaf, 'ann_file', '')}")
        _check_file(leaf, findings, pictures)
    return dataset


def _check_file(leaf: Any, findings: Findings, pictures: int) -> None:
    form = _format_of(leaf)
    prefixes = getattr(leaf, "data_prefix", None) or {}
    prefix = prefixes.get("img", prefixes.get("img_path", ""))
    images = Path(prefix)
    if _is_stored(getattr(leaf, "ann_file", "")):
        findings.write_line("  behind a URL or in tar shards: only its samples below are checked")
        return
    if _is_stored(prefix):
        findings.write_line("  its pictures are behind a URL or in tar shards, and not opened here")
    elif not images.is_dir():
        findings.problem(f"the folder of pictures {images} does not exist")
    if form is None:
        findings.write_line("  its annotations are of a kind that is not checked")
        return
    names = tuple(leaf.label_map.values()) if getattr(leaf, "label_map", None) else None
    report = ValidationReport()
    try:
        source = open_source(
            Path(leaf.ann_file), form, ReadOptions(images, names=names), ReportLedger(report)
        )
        source.samples = iter(findings.progress(source.samples, source.total))
        folder = images if images.is_dir() and not _is_stored(prefix) else None
        validate(source, report, folder, pictures, getattr(leaf, "picture_roots", ()))
    except LLMDetError as error:
        findings.problem(str(error))
        return
    findings.write_line("  " + report.text().replace("\n", "\n  "))
    allowed = getattr(leaf, "max_bad_rows", 0)
    for cause, places in report.errors.items():
        if cause == BROKEN and report.counts[cause] <= allowed:
            continue
        findings.problems += [f"{cause}: {place}" for place in places[:_SHOWN_PROBLEMS]]
        if report.counts[cause] > _SHOWN_PROBLEMS:
            findings.problems.append(f"{cause}: {report.counts[cause]:,} in all")


def _is_stored(path: str) -> bool:
    return is_url(path) or is_shards(path)


def _format_of(leaf: Any) -> str | None:
    """The format of a data set's file, by the class that reads it."""
    known = {"ODVGDataset": "odvg", "LVISV1Dataset": "lvis", "CocoDataset": "coco"}
    readers = (base.__name__ for base in type(leaf).__mro__ if "load_data_list" in vars(base))
    return known.get(next(readers, ""))


def check_prompts(config: Config, datasets: Iterable[Any], findings: Findings) -> None:
    """Show which tokens stand for which class, and what does not fit into a prompt."""
    language = config.model.get("language_model")
    if language is None:
        return  # a detector that reads no words
    try:
        tokenizer = PromptTokenizer(
            load_tokenizer(language.name), language.get("max_tokens", MAX_TOKENS)
        )
    except LLMDetError as error:
        findings.problem(f"model.language_model: {error}")
        return
    shown: set[frozenset[str]] = set()
    for leaf in (leaf for dataset in datasets for leaf in leaf_datasets(dataset)):
        names = class_names(leaf)
        if names is None:
            _count_long_texts(leaf, tokenizer, findings)
        elif frozenset(names) not in shown:
            shown.add(frozenset(names))
            _show_classes(names, tokenizer, findings)


def _show_classes(names: Sequence[str], tokenizer: PromptTokenizer, findings: Findings) -> None:
    limit, words_of = tokenizer.max_tokens, tokenizer.tokenizer
    try:
        prompts = tokenizer(parse_prompt(names))
    except DataError as error:
        findings.problem(f"classes: {error}")
        return
    findings.write_line(
        f"{len(names)} classes fill {len(prompts)} prompt(s) of at most {limit} tokens:"
    )
    for prompt in prompts:
        words = words_of.convert_ids_to_tokens(prompt.ids.tolist())
        for entity, name in enumerate(prompt.entities):
            label = prompt.label_offset + entity
            chosen = [words[i] for i in prompt.token_map[entity].nonzero()[0]]
            unknown = words_of.unk_token in chosen
            if label < _LISTED_CLASSES or unknown:
                findings.write_line(f"  {label:>5}  {name!r} -> {' '.join(chosen)}")
            if unknown:
                findings.problem(f"class {label} {name!r} has a character that the tokenizer lacks")
    if len(names) > _LISTED_CLASSES:
        findings.write_line(f"  ... {len(names) - _LISTED_CLASSES} more")


def _count_long_texts(leaf: Any, tokenizer: PromptTokenizer, findings: Findings) -> None:
    limit = tokenizer.max_tokens
    indices = spread_indices(len(leaf), _COUNTED_TEXTS)
    longest = beyond = counted = 0
    for index in indices:
        try:
            texts = _texts_of(leaf.get_data_info(index))
        except DataError:
            continue  # the check of the file has named it
        counted += len(texts)
        for length in (count + limit - tokenizer.room for count in tokenizer.count(texts)):
            longest, beyond = max(longest, length), beyond + (length > limit)
    findings.write_line(
        f"{Path(getattr(leaf, 'ann_file', '')).name}: the longest of {counted} sentences has "
        f"{longest} tokens of {limit}; {beyond} are longer, and boxes named beyond the limit are "
        "dropped and counted"
    )


def _texts_of(info: Mapping[str, Any]) -> list[str]:
    """The sentence of a row, or the expressions of its boxes."""
    if "expressions" in info:
        return [text for pair in info["expressions"] for text in pair.positives]
    return [info["text"]] if isinstance(info.get("text"), str) else []


def compare_classes(train: Any, other: Any, split: str, findings: Findings) -> None:
    """Say which classes are evaluated without being trained; a misspelt name is the usual cause."""
    trained = {name.lower() for leaf in leaf_datasets(train) for name in class_names(leaf) or ()}
    if not trained:
        return  # free text may name anything
    tested = [name for leaf in leaf_datasets(other) for name in class_names(leaf) or ()]
    unseen = [name for name in tested if name.lower() not in trained]
    if unseen:
        more = ", ..." if len(unseen) > _SHOWN_PROBLEMS else ""
        findings.write_line(
            f"{split} has {len(unseen)} of {len(tested)} classes that training does not name: "
            f"{', '.join(unseen[:_SHOWN_PROBLEMS])}{more}"
        )


def load_packed(
    dataset: Any, number: int, findings: Findings
) -> tuple[list[dict[str, Any]], list[SeenSample]]:
    """Samples spread over a data set, after the pipeline, checked on the way.

    Returns:
        What the pipeline packed, and the same samples to look at.
    """
    packed, seen = [], []
    for index in spread_indices(len(dataset), number):
        try:
            one = (
                dataset.prepare_data(index) if hasattr(dataset, "prepare_data") else dataset[index]
            )
            if one is None:
                findings.write_line(f"  sample {index} is filtered by the data set or its pipeline")
                continue
            sample = seen_sample(one, index)
        except (LLMDetError, FileNotFoundError) as error:
            findings.problem(f"sample {index}: {error}")
            continue
        _check_sample(sample, findings)
        packed.append(one)
        seen.append(sample)
    if not any(len(sample.boxes) for sample in seen):
        findings.problem("none of the samples has a box after the pipeline")
    for cause, count in dropped_totals(dataset).items():
        findings.write_line(f"  left out by the pipeline: {count:,} x {cause}")
    return packed, seen


def _check_sample(sample: SeenSample, findings: Findings) -> None:
    height, width = sample.image.shape[:2]
    for box, phrase in zip(sample.boxes, sample.phrases, strict=True):
        x1, y1, x2, y2 = box
        inside = x1 >= -1 and y1 >= -1 and x2 <= width + 1 and y2 <= height + 1
        if not inside or x2 <= x1 or y2 <= y1:
            findings.problem(
                f"{sample.path}: the box {box.round(1).tolist()} of {phrase!r} does not fit the "
                f"image of {width}x{height} that the pipeline gives"
            )


def check_learning(
    config: Config,
    packed: Sequence[dict[str, Any]],
    findings: Findings,
    *,
    device: str,
    steps: int,
    lr: float | None = None,
    weights: str | None = None,
) -> OverfitResult | None:
    """Overfit samples with the config's model; loss must fall and AP must rise.

    Args:
        config: The config; its model is built.
        packed: Samples of :func:`load_packed`; those without boxes are left out.
        findings: Gets what is wrong.
        device: For example "cuda" or "cpu".
        steps: Optimiser steps.
        lr: Learning rate; None takes the config's.
        weights: A checkpoint to start from; None starts from random weights.
    """
    chosen = [one for one in packed if len(one["data_samples"].gt_instances)]
    if not chosen:
        findings.write_line("  there is no sample with boxes to learn from")
        return None
    try:
        with checked_builds():
            model = MODELS.build(config.model)
        if weights is not None:
            from llmdet.checkpoint.load import load_weights

            load_weights(model, weights, load_missing=config.get("load_missing") or ())
        result = overfit(
            model.to(device),
            chosen,
            steps=steps,
            lr=lr or config.optim_wrapper.optimizer.lr,
            batch_size=config.train_dataloader.get("batch_size", 2),
            progress=lambda these: findings.progress(these, steps),
        )
    except LLMDetError as error:
        findings.problem(f"overfitting: {error}")
        return None
    findings.write_line(
        f"overfitting {len(chosen)} images for {steps} steps: loss {result.losses[0]:.2f} -> "
        f"{result.losses[-1]:.2f}, AP50 {result.ap_before:.3f} -> {result.ap_after:.3f}"
    )
    if not result.loss_fell:
        findings.problem("the loss does not fall on a handful of images: check boxes and prompts")
    elif not result.ap_rose:
        findings.problem(
            "the loss falls but AP does not rise on the same images: the prompt's words and the "
            "labels may not belong together, or there were too few steps"
        )
    return result
