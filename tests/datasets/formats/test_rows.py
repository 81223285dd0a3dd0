"""What is wrong with a JSONL row, or with the files beside it, is said with its place."""

import json
from pathlib import Path

import pytest

from llmdet.datasets.formats import ReadOptions, convert
from llmdet.datasets.formats.rows import label_map_path, read_label_map, read_rows, source_path
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

GROUNDING = {
    "filename": "a.jpg",
    "width": 40,
    "height": 20,
    "grounding": {
        "caption": "a red ball",
        "regions": [{"bbox": [1, 1, 9, 9], "phrase": "red ball", "tokens_positive": [[2, 10]]}],
    },
}
DETECTION = {
    "filename": "a.jpg",
    "width": 40,
    "height": 20,
    "detection": {"instances": [{"bbox": [1, 1, 9, 9], "label": 1, "category": "dog"}]},
}


def changed(row: dict, path: str, value: object) -> dict:
    """A copy of the row with the value at a dotted path replaced."""
    copy = json.loads(json.dumps(row))
    place, *keys = copy, *path.split(".")
    for key in keys[:-1]:
        place = place[int(key) if key.isdigit() else key]
    place[keys[-1]] = value
    return copy


def read(tmp_path: Path, *rows: dict, max_bad_rows: int = 0, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    ledger = Ledger(max_bad_rows)
    return list(read_rows(path, ReadOptions(**options), ledger).samples), ledger


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(GROUNDING, "filename", None), "field 'filename' is missing"),
        (changed(GROUNDING, "grounding.caption", 5), "field 'grounding.caption' must be a string"),
        (changed(GROUNDING, "grounding.regions", {}), "field 'grounding.regions' must be a list"),
        (
            changed(GROUNDING, "grounding.regions.0.bbox", [1, 2, 3]),
            r"field 'grounding\.regions\[0\]\.bbox' must be four numbers",
        ),
        (
            changed(GROUNDING, "grounding.regions.0.tokens_positive", [[0, 99]]),
            r"'grounding\.regions\[0\]\.tokens_positive' holds \[0, 99\], which is no part",
        ),
        (
            changed(DETECTION, "detection.instances.0.label", "dog"),
            r"'detection\.instances\[0\]\.label' must be a whole number from 0, not 'dog'",
        ),
        (
            changed(DETECTION, "detection.instances.0.bbox", "1 1 9 9"),
            r"'detection\.instances\[0\]\.bbox' must be four numbers",
        ),
    ],
)
def test_a_broken_row_names_file_line_and_field(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{message}"):
        read(tmp_path, GROUNDING, row)


def test_permitted_broken_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    broken = changed(GROUNDING, "filename", None)
    samples, ledger = read(tmp_path, broken, GROUNDING, broken, max_bad_rows=2)
    assert [sample.where[-1] for sample in samples] == ["2"]
    assert ledger.counts == {"broken record": 2}


def test_a_row_of_neither_form_is_a_picture_without_objects(tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, {"filename": "a.jpg", "width": 4, "height": 2})
    assert sample.instances == []


def test_labels_are_looked_up_in_the_map_beside_the_file(tmp_path: Path) -> None:
    label_map_path(tmp_path / "rows.jsonl").write_text('{"0": "cat", "1": "wolf"}')
    (sample,), _ = read(tmp_path, DETECTION)
    assert sample.instances[0].phrase == "wolf"
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*label' is 7, but the label map has"):
        read(tmp_path, changed(DETECTION, "detection.instances.0.label", 7))


def test_names_that_the_caller_knows_come_first(tmp_path: Path) -> None:
    label_map_path(tmp_path / "rows.jsonl").write_text('{"0": "cat", "1": "wolf"}')
    (sample,), _ = read(tmp_path, DETECTION, names=("a", "b"))
    assert sample.instances[0].phrase == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "without holes"),
        ('{"0": "a", "2": "b"}', "without holes"),
        ("{", "not valid JSON"),
    ],
)
def test_a_wrong_label_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"map\.json.*{message}"):
        read_label_map(path)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (3, 4)],
        "annotations": [{"id": 9, "image_id": 3, "category_id": 7, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 7, "name": "dog"}],
    }
    coco, rows = tmp_path / "a.json", tmp_path / "rows.jsonl"
    coco.write_text(json.dumps(document))
    convert(coco, rows, "coco", "odvg", options=ReadOptions(), ledger=Ledger())
    return rows


def back(rows: Path) -> dict:
    out = rows.with_name("back.json")
    convert(rows, out, "odvg", "coco", options=ReadOptions(), ledger=Ledger())
    return json.loads(out.read_text())


def test_rows_edited_after_conversion_are_not_given_the_ids_of_others(converted: Path) -> None:
    first, second = converted.read_text().splitlines()
    converted.write_text(f"{second}\n{first}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the row no longer fits the .source.jsonl"):
        back(converted)
    converted.write_text(first)
    with pytest.raises(DataError, match=r"rows\.source\.jsonl describes 2 rows, .* has 1"):
        back(converted)


def test_without_the_source_file_ids_are_given_anew(converted: Path) -> None:
    source_path(converted).unlink()
    document = back(converted)
    assert [image["id"] for image in document["images"]] == [1, 2]
    assert document["annotations"][0]["image_id"] == 1
    assert document["categories"] == [{"id": 1, "name": "dog"}]


def test_masks_and_conversations_survive_a_conversion_between_forms(tmp_path: Path) -> None:
    square = [[1, 1, 9, 1, 9, 9]]
    row = {
        "image": "a.jpg",
        "width": 40,
        "height": 30,
        "detection": {
            "instances": [
                {"bbox": [1, 1, 9, 9], "label": 0, "category": "cat", "segmentation": square},
                {"bbox": [2, 2, 8, 8], "label": 0, "category": "cat"},
            ]
        },
        "regions": [{"segmentation": square}],
        "conversations": [
            {"from": "human", "value": "<image> <region>?"},
            {"from": "gpt", "value": "A cat."},
        ],
    }
    rows, out, last = (tmp_path / name for name in ("rows.jsonl", "out.jsonl", "last.json"))
    rows.write_text(json.dumps(row))
    label_map_path(rows).write_text('{"0": "cat"}')
    convert(rows, out, "odvg", "grounding", options=ReadOptions(), ledger=Ledger())
    made = json.loads(out.read_text())
    assert made["filename"] == "a.jpg"
    assert (made["regions"], made["conversations"]) == (row["regions"], row["conversations"])
    first, second = made["grounding"]["regions"]
    assert first["segmentation"] == square
    assert "segmentation" not in second
    convert(out, last, "grounding", "coco", options=ReadOptions(), ledger=Ledger())
    assert json.loads(last.read_text())["annotations"][0]["segmentation"] == square
