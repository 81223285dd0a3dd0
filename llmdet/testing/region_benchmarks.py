"""Miniatures of the evaluation sets of region language models, and what is true of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.prompts.region_tasks import choice
from llmdet.testing.benchmarks import BOXES, HEIGHT, WIDTH, write_image

#: By set (None where there is one only) and question: the right answer.
Answers = dict[tuple[str | None, int], str]
_NAMES = ("cat", "dog")


def write_region_miniature(benchmark: str, root: str | Path) -> Answers:
    """Write the files that an evaluation config of ``configs/regiongpt`` reads.

    Args:
        benchmark: name of the config without size of the model, such as ``pope``.
        root: folder to work in, which gets ``data/``.

    Returns:
        What a perfect model answers; of choices in the order of the candidates' file.
    """
    return REGION_WRITERS[benchmark](Path(root) / "data")


def _classification(data: Path) -> Answers:
    boxes = [_annotation(number, number + 1, box) for number, box in enumerate(BOXES)]
    boxes.append(_annotation(2, 1, BOXES[0]) | {"iscrowd": 1})
    content = {
        "images": [_image(1)],
        "annotations": boxes,
        "categories": [{"id": n, "name": name} for n, name in enumerate(_NAMES, 1)],
    }
    _write(data / "coco/annotations/instances_val2017.json", content)
    write_image(data / "coco/val2017/1.jpg")
    return {(None, 10 + number): name for number, name in enumerate(_NAMES)}


def _choice(data: Path) -> Answers:
    answers: Answers = {}
    write_image(data / "coco/train2014/1.jpg")
    for split in ("val", "test"):
        sentences = [_image(n) | {"caption": f"the {name}"} for n, name in enumerate(_NAMES, 1)]
        content = {
            "images": [sentence | {"dataset_name": "refcocog"} for sentence in sentences],
            "annotations": [
                _annotation(n, 1, box) | {"image_id": n + 1} for n, box in enumerate(BOXES)
            ],
            "categories": [{"id": 1, "name": "object"}],
        }
        file = f"coco/mdetr_annotations/finetune_refcocog_{split}.json"
        _write(data / file, content)
        path = data / f"coco/candidates/refcocog_{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with PredictionWriter(path, PredictionHeader("tiny", weights_hash="abc")) as writer:
            for sentence in (1, 2):
                boxes = [_xyxy(box) for box in BOXES]
                writer.write(prediction_row(sentence, boxes, [0.9, 0.8], [0, 0]))
                answers[split, sentence] = choice(sentence)
    return answers


def _captions(data: Path) -> Answers:
    content = {
        "images": [_image(number) for number in (1, 2)],
        "annotations": [
            _annotation(n, 1, box) | {"image_id": n + 1, "caption": f"a {_NAMES[n]}"}
            for n, box in enumerate(BOXES)
        ],
    }
    _write(data / "coco/mdetr_annotations/finetune_refcocog_val_captions.json", content)
    write_image(data / "coco/train2014/1.jpg")
    return {(None, number): f"a {name}" for number, name in enumerate(_NAMES, 1)}


def _pope(data: Path) -> Answers:
    answers: Answers = {}
    write_image(data / "coco/val2014/1.jpg")
    for setting in ("random", "popular", "adversarial"):
        lines = []
        for number, label in enumerate(("yes", "no"), 1):
            text = f"Is there a {_NAMES[number - 1]} in the image?"
            question = {"question_id": number, "image": "1.jpg", "text": text, "label": label}
            lines.append(json.dumps(question))
            answers[setting, number] = label.capitalize()
        path = data / f"pope/coco_pope_{setting}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return answers


REGION_WRITERS: dict[str, Callable[[Path], Answers]] = {
    "coco_classification": _classification,
    "refcocog_choice": _choice,
    "refcocog_captions": _captions,
    "pope": _pope,
}


def _image(identity: int) -> dict[str, Any]:
    return {"id": identity, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}


def _annotation(number: int, category: int, box: list[float]) -> dict[str, Any]:
    x, y, width, height = box
    return {
        "id": 10 + number,
        "image_id": 1,
        "category_id": category,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _xyxy(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]
