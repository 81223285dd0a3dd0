"""Miniatures of the evaluation sets of models that answer with masks, and what is true of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.masks import encode_mask
from llmdet.prompts.mask_tasks import MASK_TASKS
from llmdet.testing.benchmarks import BOXES, HEIGHT, WIDTH, write_image

_NAMES = ("a cat", "a dog")


@dataclass(frozen=True)
class MaskedAnswer:
    """What a perfect model answers."""

    text: str
    phrases: tuple[str, ...] = ()
    masks: tuple[dict[str, Any], ...] = field(default=(), repr=False)


#: By set (None where there is one only) and question.
MaskedAnswers = dict[tuple[str | None, int], MaskedAnswer]


def write_mask_miniature(benchmark: str, root: str | Path) -> MaskedAnswers:
    """Write the files that a config of ``configs/glamm/val`` reads.

    Args:
        benchmark: name of the config without size of the model, such as ``gcg``.
        root: folder to work in, which gets ``data/``.

    Returns:
        What a perfect model answers.
    """
    return MASK_WRITERS[benchmark](Path(root) / "data")


def _grounded_captions(data: Path) -> MaskedAnswers:
    answers: MaskedAnswers = {}
    masks = [_mask(box) for box in BOXES]
    text = " and ".join(f"<p> {name} </p> [SEG]" for name in _NAMES)
    folder = data / "grandf/GranDf/annotations/val_test"
    for split in ("val", "test"):
        annotations = [
            {"id": n, "image_id": image, "category_id": 1, "bbox": BOXES[n], "segmentation": mask}
            | {"area": BOXES[n][2] * BOXES[n][3], "iscrowd": 0}
            for image in (1, 2)
            for n, mask in enumerate(masks)
        ]
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        said = {"caption": " and ".join(_NAMES), "labels": list(_NAMES)}
        captions = {
            "images": [{"id": image, "file_name": "1.jpg"} for image in (1, 2)],
            "annotations": [{"id": image, "image_id": image, **said} for image in (1, 2)],
        }
        pictures = [{"id": image, "height": HEIGHT, "width": WIDTH} for image in (1, 2)]
        categories = [{"id": 1, "name": "object"}]
        truth = {"images": pictures, "annotations": annotations, "categories": categories}
        _write(folder / f"{split}_gcg_coco_caption_gt.json", captions)
        _write(folder / f"{split}_gcg_coco_mask_gt.json", truth)
        answer = MaskedAnswer(text, _NAMES, tuple(masks))
        answers |= {(split, image): answer for image in (1, 2)}
    write_image(data / "grandf/GranDf_HA_images/val_test/1.jpg")
    return answers


def _referring_masks(data: Path) -> MaskedAnswers:
    answers: MaskedAnswers = {}
    question = MASK_TASKS["segment"].wordings[0]
    masks = [_mask(box) for box in BOXES]
    turns = []
    for number, name in enumerate(_NAMES):
        turns.append({"from": "human", "value": question.format(text=name)})
        turns.append({"from": "gpt", "value": f"It is <mask:{number}>."})
    row = {"filename": "1.jpg", "height": HEIGHT, "width": WIDTH, "task": "segment"}
    row |= {"regions": [{"segmentation": mask} for mask in masks], "conversations": turns}
    sets = ("refcoco", "val testA testB"), ("refcoco+", "val testA testB"), ("refcocog", "val test")
    for name, parts in sets:
        for split in (f"{name}_{part}" for part in parts.split()):
            _write(data / f"coco/masks/{split}.jsonl", row)
            for number, mask in enumerate(masks):
                answers[split, number] = MaskedAnswer("It is [SEG].", ("",), (mask,))
    write_image(data / "coco/train2014/1.jpg")
    return answers


def _captions(file: str, picture: str) -> Callable[[Path], MaskedAnswers]:
    def write(data: Path) -> MaskedAnswers:
        content = {
            "images": [
                {"id": number, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}
                for number in (1, 2)
            ],
            "annotations": [
                {"id": number, "image_id": number, "bbox": box, "caption": name}
                for number, (box, name) in enumerate(zip(BOXES, _NAMES, strict=True), start=1)
            ],
        }
        _write(data / file, content)
        write_image(data / picture)
        return {(None, number): MaskedAnswer(name) for number, name in enumerate(_NAMES, start=1)}

    return write


MASK_WRITERS: dict[str, Callable[[Path], MaskedAnswers]] = {
    "gcg": _grounded_captions,
    "refcoco_masks": _referring_masks,
    "refcocog_captions": _captions(
        "coco/mdetr_annotations/finetune_refcocog_val_captions.json", "coco/train2014/1.jpg"
    ),
    "vg_captions": _captions("visual_genome/test_caption.json", "visual_genome/1.jpg"),
}


def _mask(box: list[float]) -> dict[str, Any]:
    x, y, width, height = map(int, box)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    return encode_mask(mask)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n")
