"""Miniatures of the benchmarks: their folder layouts with one or two small images a set."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmdet.evaluation.odinw import ODINW13, ODINW35, OdinwSet

WIDTH, HEIGHT = 48, 32
BOXES = ([4.0, 4.0, 16.0, 12.0], [24.0, 10.0, 12.0, 16.0])  # x, y, width, height of every image
DOMAINS = ("cartoon", "handmake", "painting", "sketch", "tattoo", "weather")
OVDEVAL_TASKS = (
    "celebrity",
    "color",
    "landmark",
    "logo",
    "material",
    "negation",
    "object",
    "position",
    "relationship",
)

#: By set (None where there is one only) and image id: boxes xyxy with their label, which is a
#: class name or description, or the number of a phrase.
Answers = dict[tuple[str | None, int], list[tuple[list[float], str | int]]]


def write_miniature(benchmark: str, root: str | Path) -> Answers:
    """Write the files that a config of ``configs/val`` reads, below ``root/data``.

    Args:
        benchmark: name of the config without size of the model, such as ``lvis_minival``.
        root: folder to work in, where the config is to be run.

    Returns:
        What a perfect detector answers.
    """
    return WRITERS[benchmark](Path(root) / "data")


def _lvis(annotations: str) -> Callable[[Path], Answers]:
    def write(data: Path) -> Answers:
        content, answers = _coco(("bow_(ribbon)", "cat"))
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['file_name']}"
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for category, frequency in zip(content["categories"], "rf", strict=True):
            category["frequency"] = frequency
        _write_set(data / "coco", f"annotations/{annotations}", "val2017", content)
        return {(None, image): answer for image, answer in answers.items()}

    return write


def _coco_val(data: Path) -> Answers:
    content, answers = _coco(("cat", "dog"))
    _write_set(data / "coco", "annotations/instances_val2017.json", "val2017", content)
    return {(None, image): answer for image, answer in answers.items()}


def _coco_o(data: Path) -> Answers:
    result: Answers = {}
    for domain in DOMAINS:
        content, answers = _coco(("cat", "dog"))
        folder = data / "coco_o" / domain
        _write_set(folder, "annotations/instances_val2017.json", "val2017", content)
        result |= {(domain, image): answer for image, answer in answers.items()}
    return result


def _odinw(entries: tuple[OdinwSet, ...]) -> Callable[[Path], Answers]:
    def write(data: Path) -> Answers:
        result: Answers = {}
        for entry in entries:
            content, answers = _coco(entry.classes)
            if entry.renamed:
                for number, category in enumerate(content["categories"]):
                    category["name"] = f"original name {number}"
            _write_set(data / "odinw", entry.ann_file, entry.image_folder, content)
            result |= {(entry.name, image): answer for image, answer in answers.items()}
        return result

    return write


def _refexp(data: Path) -> Answers:
    files = {
        "val": "final_refexp_val",
        "refcoco_testA": "finetune_refcoco_testA",
        "refcoco_testB": "finetune_refcoco_testB",
        "refcoco_plus_testA": "finetune_refcoco+_testA",
        "refcoco_plus_testB": "finetune_refcoco+_testB",
        "refcocog_test": "finetune_refcocog_test",
        "grefcoco_val": "finetune_grefcoco_val",
        "grefcoco_testA": "finetune_grefcoco_testA",
        "grefcoco_testB": "finetune_grefcoco_testB",
    }
    result: Answers = {}
    for name, file in files.items():
        content, _ = _coco(("object",))
        dataset = name.split("_")[0].replace("val", "refcoco")
        dataset = "refcoco+" if "plus" in name else dataset
        content["annotations"] = content["annotations"][:1]
        for image in content["images"]:
            image |= {"caption": "the red cat", "dataset_name": dataset}
        _write_set(data / "coco", f"mdetr_annotations/{file}.json", "train2014", content)
        result[name, 1] = [(_xyxy(BOXES[0]), 0)]
    return result


def _flickr30k(data: Path) -> Answers:
    result: Answers = {}
    for split in ("val", "test"):
        content, _ = _coco(("object",))
        content["annotations"] = [
            {**annotation, "category_id": 1, "phrase_ids": number}
            for number, annotation in enumerate(content["annotations"][:2])
        ]
        for image in content["images"]:
            image |= {"caption": "a red cat and a dog"}
            image["tokens_positive_eval"] = [[[0, 9]], [[14, 19]]]
        file = f"final_flickr_separateGT_{split}.json"
        _write_set(data / "flickr30k_entities", file, "flickr30k_images", content)
        result[split, 1] = [(_xyxy(box), number) for number, box in enumerate(BOXES)]
    return result


def _d3(data: Path) -> Answers:
    content, answers = _coco(("a dog that runs", "cat without tail"))
    for split, kept in (("full", (1, 2)), ("pres", (1,)), ("abs", (2,))):
        part = {
            "images": content["images"],
            "categories": [c for c in content["categories"] if c["id"] in kept],
            "annotations": [a for a in content["annotations"] if a["category_id"] in kept],
        }
        _write_set(data / "d3", f"d3_json/d3_{split}_annotations.json", "d3_images", part)
    pickles = {"images": {1: {"group_id": 0}}, "groups": {0: {"inner_sent_id": [1, 2]}}}
    for name, value in pickles.items():
        path = data / "d3" / "d3_pkl" / f"{name}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(value))
    return {(None, image): answer for image, answer in answers.items()}


def _ovdeval(data: Path) -> Answers:
    result: Answers = {}
    for task in OVDEVAL_TASKS:
        content, answers = _coco(("red cat", "blue cat", "dog"))
        for image in content["images"]:
            image |= {"text": ["red cat", "blue cat"], "neg_text": ["dog"]}
        _write_set(data / "ovdeval", f"annotations/{task}.json", f"images/{task}", content)
        result |= {(task, image): answer for image, answer in answers.items()}
    return result


def _omnilabel(data: Path) -> Answers:
    content, answers = _coco(("cat", "dog on the left"))
    kinds = ("object_category", "object_description")
    content["descriptions"] = [
        {"id": c["id"], "text": c["name"], "image_ids": [1], "anno_info": {"type": kind}}
        for c, kind in zip(content.pop("categories"), kinds, strict=True)
    ]
    for annotation in content["annotations"]:
        annotation["description_ids"] = [annotation.pop("category_id")]
    _write_set(data / "omnilabel", "dataset_all_val.json", "images", content)
    return {(None, image): answer for image, answer in answers.items()}


WRITERS: dict[str, Callable[[Path], Answers]] = {
    "lvis_minival": _lvis("lvis_v1_minival_inserted_image_name.json"),
    "lvis_val": _lvis("lvis_v1_val.json"),
    "coco": _coco_val,
    "coco_o": _coco_o,
    "odinw13": _odinw(ODINW13),
    "odinw35": _odinw(ODINW35),
    "refexp": _refexp,
    "flickr30k": _flickr30k,
    "d3": _d3,
    "ovdeval": _ovdeval,
    "omnilabel": _omnilabel,
}


def _coco(names: tuple[str, ...]) -> tuple[dict[str, Any], dict[int, list]]:
    """A COCO file of one image with a box of the first class and one of the second, if any."""
    image = {"id": 1, "file_name": "000000000001.jpg", "width": WIDTH, "height": HEIGHT}
    annotations, answers = [], []
    for number, box in enumerate(BOXES):
        label = min(number, len(names) - 1)
        annotations.append(
            {
                "id": number + 1,
                "image_id": 1,
                "category_id": label + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        )
        answers.append((_xyxy(box), names[label]))
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(names)]
    content = {"images": [image], "annotations": annotations, "categories": categories}
    return content, {1: answers}


def _write_set(root: Path, ann_file: str, image_folder: str, content: dict[str, Any]) -> None:
    path = root / ann_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    for image in _images(root / image_folder, content):
        write_image(image)


def _images(folder: Path, content: dict[str, Any]) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        yield folder / image["file_name"]


def write_image(path: Path) -> None:
    """Write a picture with two coloured boxes, into a folder that is made where it is missing."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 90))
    for box, colour in zip(BOXES, ((200, 40, 40), (40, 40, 200)), strict=True):
        ImageDraw.Draw(image).rectangle(_xyxy(box), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _xyxy(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]
