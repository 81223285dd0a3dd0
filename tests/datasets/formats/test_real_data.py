"""The same photographs annotated as COCO and as JSONL: converting one gives the other."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmdet.datasets.formats import ReadOptions, convert
from llmdet.datasets.ledger import Ledger

SETS = [
    ("bccd", "train"),
    ("bccd", "val"),
    ("bccd", "test"),
    ("raccoon", "train"),
    ("raccoon", "val"),
    ("playing_cards", "train"),
    ("playing_cards", "val"),
]


@pytest.fixture(params=SETS, ids="-".join)
def part(request) -> tuple[Path, str]:
    root = os.environ.get("LLMDET_REAL_DATA")
    if not root:
        pytest.skip("LLMDET_REAL_DATA is not set: it names the folder of real annotated pictures")
    folder, split = request.param
    return Path(root) / folder, split


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def run(path: Path, out: Path, source: str, target: str, **options) -> Ledger:
    if path.parent != out.parent:  # the index is not to be written among the real data
        path = Path(shutil.copy(path, out.parent))
    ledger = Ledger()
    convert(path, out, source, target, options=ReadOptions(**options), ledger=ledger)
    return ledger


def test_coco_converts_to_the_given_detection_rows(part, tmp_path: Path) -> None:
    folder, split = part
    out = tmp_path / "rows.jsonl"
    run(folder / f"instances_{split}.json", out, "coco", "odvg")
    ours = {row["filename"]: row for row in rows_of(out)}
    given = {row["filename"]: row for row in rows_of(folder / f"odvg_od_{split}.jsonl")}
    assert ours.keys() == given.keys()
    for name, row in given.items():
        assert {key: ours[name][key] for key in ("height", "width")} == {
            key: row[key] for key in ("height", "width")
        }
        pairs = list(
            zip(ours[name]["detection"]["instances"], row["detection"]["instances"], strict=True)
        )
        for mine, theirs in pairs:
            assert mine["label"] == theirs["label"]
            assert mine["category"] == theirs["category"]
            np.testing.assert_allclose(mine["bbox"], theirs["bbox"], atol=0.011)
    label_map = json.loads((tmp_path / "rows_label_map.json").read_text())
    assert label_map == json.loads((folder / "odvg_label_map.json").read_text())


def boxes_by_class(document: dict) -> dict:
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    boxes: dict = {}
    for item in document["annotations"]:
        key = files[item["image_id"]], names[item["category_id"]]
        boxes.setdefault(key, []).append(item["bbox"])
    return {key: np.array(sorted(values)) for key, values in boxes.items()}


@pytest.mark.parametrize("form", ["odvg_od", "groundingcap"])
def test_rows_convert_to_the_given_coco_boxes(part, tmp_path: Path, form: str) -> None:
    folder, split = part
    out = tmp_path / "instances.json"
    classes = {"classes": folder / "odvg_label_map.json"} if form == "odvg_od" else {}
    run(folder / f"{form}_{split}.jsonl", out, "odvg", "coco", **classes)
    ours = boxes_by_class(json.loads(out.read_text()))
    given = boxes_by_class(json.loads((folder / f"instances_{split}.json").read_text()))
    if form == "groundingcap":  # phrases are free text: compare the boxes of each picture
        ours, given = by_file(ours), by_file(given)
    assert ours.keys() == given.keys()
    for key, boxes in given.items():
        np.testing.assert_allclose(ours[key], boxes, atol=0.021)


def by_file(boxes: dict) -> dict:
    merged: dict = {}
    for (name, _), values in boxes.items():
        merged.setdefault(name, []).extend(values.tolist())
    return {name: np.array(sorted(values)) for name, values in merged.items()}


@pytest.mark.parametrize("form", ["grounding", "odvg"])
def test_round_trip_of_a_real_coco_file_is_lossless(part, tmp_path: Path, form: str) -> None:
    folder, split = part
    source = folder / f"instances_{split}.json"
    run(source, tmp_path / "rows.jsonl", "coco", form)
    run(tmp_path / "rows.jsonl", tmp_path / "back.json", form, "coco")
    ours, given = json.loads((tmp_path / "back.json").read_text()), json.loads(source.read_text())
    for key in ("images", "annotations"):
        given[key].sort(key=lambda item: item["id"])
        ours[key].sort(key=lambda item: item["id"])
    assert ours == given
