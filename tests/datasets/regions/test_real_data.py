"""Conversations about the regions of real photographs, by the program that users run."""

import json
import shutil

import pytest

from llmdet.cli import convert_data
from llmdet.datasets.rows import read_row
from llmdet.prompts.region_tasks import read_choice


def build(path, tmp_path, form, *arguments):
    path = shutil.copy(path, tmp_path)  # the index is not to be written among the real data
    out = tmp_path / "regions.jsonl"
    command = [str(path), str(out), "--from", form, "--to", "regions", *map(str, arguments)]
    assert convert_data.main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [(row, read_row(row, "row")) for row in rows]


def boxes_of_classes(path):
    document = json.loads(path.read_text())
    names = {item["id"]: item["name"] for item in document["categories"]}
    files = {item["id"]: item["file_name"] for item in document["images"]}
    return {
        (files[item["image_id"]], *(round(value) for value in item["bbox"])): names[
            item["category_id"]
        ]
        for item in document["annotations"]
    }


def key(row, box):
    x1, y1, x2, y2 = box
    return row.filename, *(round(float(value)) for value in (x1, y1, x2 - x1, y2 - y1))


@pytest.mark.parametrize("name", ["bccd", "playing_cards"])
def test_classes_of_real_boxes_are_asked_up_to_the_cap(name, real_data, tmp_path):
    path = real_data / name / "instances_train.json"
    pairs = build(path, tmp_path, "coco", "--task", "classify", "--per-class", 20)
    true, said = boxes_of_classes(path), {}
    for row, read in pairs:
        answers = [turn["value"] for turn in row["conversations"][1::2]]
        for box, answer in zip(read.regions.boxes, answers, strict=True):
            assert true[key(read, box)] == answer
            said.setdefault(answer, []).append(box)
    assert {name: len(boxes) for name, boxes in said.items()} == dict.fromkeys(true.values(), 20)


def test_the_right_one_of_real_regions_is_of_the_class_that_its_phrase_names(real_data, tmp_path):
    folder = real_data / "bccd"
    objects = folder / "instances_train.json"
    pairs = build(
        folder / "groundingcap_train.jsonl",
        tmp_path,
        "grounding",
        *("--task", "choose", "--objects", objects, "--none-share", 0, "--turns", 1),
    )
    true, checked = boxes_of_classes(objects), 0
    for row, read in pairs:
        question, answer = (turn["value"] for turn in row["conversations"])
        right = read.regions.boxes[read_choice(answer) - 1]
        name = true[key(read, right)]
        assert name in question
        checked += 1
    assert checked > 100
