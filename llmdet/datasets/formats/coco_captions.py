"""COCO's captions of whole pictures: ``captions_*.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.coco_samples import each_image, image_sample, open_stream
from llmdet.datasets.formats.samples import ReadOptions, Sample, Source
from llmdet.datasets.ledger import Ledger


def read_coco_captions(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a caption file: one sample for each caption, without objects.

    Raises:
        DataError: the file or an annotation is broken.
    """
    stream = open_stream(path, ledger)

    def convert(image: dict[str, Any], annotations: list[dict[str, Any]]) -> list[Sample]:
        samples = []
        for annotation in annotations:
            where = f"{stream.path}: annotation id {annotation.get('id')!r}"
            sample = image_sample(image, stream.path, options)
            sample.caption = " ".join(Fields(annotation, where).text("caption").split())
            samples.append(sample)
        return samples

    def samples() -> Iterator[Sample]:
        for of_image in each_image(stream, convert, ledger):
            yield from of_image

    return Source(samples(), None)
