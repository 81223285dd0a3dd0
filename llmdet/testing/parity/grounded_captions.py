"""Recordings of GLaMM's data classes of captions with masks, whose ways we do not share.

Ours sorts phrases, leaves out those that overlap and joins masks
(:mod:`llmdet.datasets.regions.masked`). What the original makes of the same annotations is written
here, so that what a released model was trained on can be told: spans that are trimmed in the order
of the file, places that count from the end of the text, text that is cut by tags of phrases inside
it, and sums of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.masks import decode_mask
from llmdet.datasets.sample import Mask
from llmdet.testing.parity.mask_text import INTRODUCTION, SYSTEM
from llmdet.testing.parity.model import read_json
from llmdet.testing.parity.rows import Row, compare_exact

_LEAST_WORDS = 3  # of a caption of Flickr30k

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class LegacyCaption:
    """A caption as the original reads it."""

    caption: str
    labels: tuple[str, ...]  # N
    spans: tuple[tuple[int, int], ...]  # N, (begin, end) as Python slices
    masks: tuple[np.ndarray, ...]  # N, [height, width] uint8, in how many parts a pixel is

    @property
    def order(self) -> list[int]:
        """Phrases by where they begin."""
        return sorted(range(len(self.spans)), key=lambda number: self.spans[number][0])

    @property
    def answer(self) -> str:
        """Tags are put in from the last phrase to the first, without a look at those put in."""
        text = self.caption
        for begin, end in sorted(self.spans, key=lambda span: span[0], reverse=True):
            text = f"{text[:begin]}<p> {text[begin:end]} </p> [SEG]{text[end:]}"
        return text


def check(folder: Path) -> Iterator[Row]:
    """Compare what is made of each caption of a folder, whose questions are taken as recorded."""
    inputs = read_json(folder / "inputs.json")
    recorded = read_json(folder / "expected_gcg.json")
    flickr = dict(_flickr(inputs["Flickr_GCG"]))
    for form, items in recorded.items():
        for number, expected in enumerate(items):
            if form == "Flickr_GCG":
                ours = flickr.get(expected["image_id"])
            elif form == "RefCOCOg_GCG":
                (entry,) = inputs[form][number].values()
                height, width = inputs["image_hw"][form][number]
                ours = legacy_refcocog(entry, (height, width))
            else:
                ours = legacy_grandf(inputs[form][number])
            name = f"{form}/{number}"
            if ours is None:
                yield Row(name, float("nan"), float("nan"), False, "left out")
            else:
                yield from _rows(name, expected, ours)


def legacy_grandf(entry: Mapping[str, Any]) -> LegacyCaption:
    """The human and the PSG form: quotation marks go, places stay."""
    groundings = entry["groundings"]
    spans = [tuple(item["token_positives"]) for item in groundings.values()]
    masks = [_summed(item["rle_masks"]) for item in groundings.values()]
    return LegacyCaption(
        entry["caption"].strip('"').strip(), tuple(groundings), tuple(spans), tuple(masks)
    )


def legacy_refcocog(entry: Mapping[str, Any], size: Size) -> LegacyCaption:
    """RefCOCOg's form: phrases are looked up as they stand in a caption in lower case.

    Where a phrase ends behind the begin of any later one of the file, its end is moved in front of
    that, and the label of that number is replaced, which sorting gave to another.
    """
    original = entry["caption"].strip('"').strip()
    caption = original.lower()
    found: list[tuple[str, list[int], np.ndarray]] = []
    for reference in entry["refs"]:
        phrase = reference["sentence"]
        if phrase.lower() not in caption:
            continue
        begin = caption.find(phrase)
        span = [begin, begin + len(phrase) if begin >= 0 else -1]
        parts = [[polygon] for polygon in reference["segmentation"]]
        found.append((phrase, span, _summed(parts, size)))
    in_file = [span for _, span, _ in found]
    found.sort(key=lambda each: each[1][0])
    labels = [phrase for phrase, _, _ in found]
    for number, span in enumerate(in_file):
        later = (other for other in in_file[number + 1 :] if span[1] >= other[0])
        if (first := next(later, None)) is not None:
            span[1] = first[0] - 1
            labels[number] = original[span[0] : span[1] + 1]
    spans = [(begin, end) for _, (begin, end), _ in found]
    return LegacyCaption(caption, tuple(labels), tuple(spans), tuple(mask for *_, mask in found))


def _flickr(content: Mapping[str, Any]) -> Iterator[tuple[Any, LegacyCaption]]:
    """Flickr's form: boxes that lie outside, are too small or ignored go, the first span counts."""
    for image in content["images"]:
        caption = image["caption"].strip('"').strip()
        if len(caption.split(" ")) < _LEAST_WORDS:
            continue
        kept = [
            annotation
            for annotation in content["annotations"]
            if annotation["image_id"] == image["id"] and _is_kept(annotation, image)
        ]
        spans = [tuple(annotation["tokens_positive"][0]) for annotation in kept]
        if spans:
            yield (
                image["id"],
                LegacyCaption(
                    caption,
                    tuple(caption[begin:end] for begin, end in spans),
                    tuple((begin, end) for begin, end in spans),
                    tuple(_summed([annotation["sam_mask"]]) for annotation in kept),
                ),
            )


def _is_kept(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    x, y, width, height = annotation["bbox"]
    across = max(0, min(x + width, image["width"]) - max(x, 0))
    down = max(0, min(y + height, image["height"]) - max(y, 0))
    has_area = annotation["area"] > 0 and width >= 1 and height >= 1
    return not annotation.get("ignore", False) and across * down > 0 and has_area


def _summed(parts: Sequence[Mask], size: Size | None = None) -> np.ndarray:
    """In how many parts each pixel is, uint8."""
    sizes = (part["size"] if isinstance(part, Mapping) else size for part in parts)
    masks = [decode_mask(part, tuple(s)) for part, s in zip(parts, sizes, strict=True)]  # type: ignore[arg-type]
    return np.sum(masks, axis=0).astype(np.uint8)


def _rows(name: str, expected: Mapping[str, Any], ours: LegacyCaption) -> Iterator[Row]:
    parsed = {
        "labels": list(ours.labels),
        "tokens_positive": [list(span) for span in ours.spans],
        "caption": ours.caption,
        "mask_areas": [int((mask > 0).sum()) for mask in ours.masks],
        "mask_max": [int(mask.max()) for mask in ours.masks],
        "mask_sum": [int(mask.sum()) for mask in ours.masks],
    }
    for key, value in expected["parsed"].items():
        yield compare_exact(f"{name}/parsed.{key}", value, parsed.get(key))
    text = f"{SYSTEM} USER: {INTRODUCTION}{expected['question']} ASSISTANT: {ours.answer}</s>"
    made = {
        "conversation": text,
        "answer_with_tags": ours.answer,
        "selected_labels": [ours.labels[number] for number in ours.order],
        "masks_order_sums": [int(ours.masks[number].sum()) for number in ours.order],
        "mask_shape": [len(ours.masks), *ours.masks[0].shape],
        "n_seg": ours.answer.count("[SEG]"),
    }
    for key, value in made.items():
        yield compare_exact(f"{name}/{key}", expected[key], value)
