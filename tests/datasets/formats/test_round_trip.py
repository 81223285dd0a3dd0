"""Converting there and back gives the same data set."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.formats import ReadOptions, convert
from llmdet.datasets.formats.writing import readable_name
from llmdet.datasets.ledger import Ledger

NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name.strip())
COORDINATES = st.one_of(
    st.integers(-50, 700), st.floats(-50, 700, allow_nan=False), st.just(0.1), st.just(0.2)
)
FREE_FIELDS = st.dictionaries(
    st.sampled_from(["segmentation", "license", "note", "source"]),
    st.one_of(st.integers(0, 9), st.text(max_size=4), st.lists(st.floats(0, 9), max_size=3)),
)


@st.composite
def coco_documents(draw: st.DrawFn) -> dict:
    category_ids = draw(st.lists(st.integers(0, 90), min_size=1, max_size=4, unique=True))
    image_ids = draw(
        st.lists(
            st.one_of(st.integers(0, 2**40), st.text("aé0", min_size=1, max_size=3)),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    images = [
        {"id": image_id, "file_name": f"folder/{number}é.jpg", "width": 640, "height": 480}
        | draw(FREE_FIELDS)
        for number, image_id in enumerate(image_ids)
    ]
    annotations = [
        {
            "id": annotation_id,
            "image_id": draw(st.sampled_from(image_ids)),
            "category_id": draw(st.sampled_from(category_ids)),
            "bbox": [draw(COORDINATES) for _ in range(4)],
            "area": draw(st.floats(0, 1e6)),
            "iscrowd": draw(st.sampled_from([0, 0, 0, 1])),
        }
        | draw(FREE_FIELDS)
        for annotation_id in draw(st.lists(st.integers(1, 10**9), max_size=8, unique=True))
    ]
    document = {
        "info": {"description": draw(st.text(max_size=8))},
        "licenses": [{"id": 1}],
        "categories": [{"id": i, "name": draw(NAMES), "supercategory": "x"} for i in category_ids],
    }
    members = {"images": images, "annotations": annotations, **document}
    return {key: members[key] for key in draw(st.permutations(list(members)))}


def by_id(document: dict) -> dict:
    return {
        **document,
        "images": {image["id"]: image for image in document["images"]},
        "annotations": {item["id"]: item for item in document["annotations"]},
    }


def run(path: Path, out: Path, source: str, target: str, **options) -> Ledger:
    ledger = Ledger()
    convert(path, out, source, target, options=ReadOptions(**options), ledger=ledger)
    return ledger


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=coco_documents(), indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_coco_to_grounding_to_coco_is_lossless(tmp_path, document, indent, ascii_only) -> None:
    first, rows, last = tmp_path / "a.json", tmp_path / "rows.jsonl", tmp_path / "b.json"
    first.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), "utf-8")
    run(first, rows, "coco", "grounding")
    run(rows, last, "grounding", "coco")
    assert by_id(json.loads(last.read_bytes())) == by_id(document)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=coco_documents())
def test_coco_to_detection_rows_to_coco_is_lossless(tmp_path, document) -> None:
    for category in document["categories"]:  # a label map needs names that differ
        category["name"] += f" {category['id']}"
    first, rows, last = tmp_path / "a.json", tmp_path / "rows.jsonl", tmp_path / "b.json"
    first.write_text(json.dumps(document), "utf-8")
    run(first, rows, "coco", "odvg")
    run(rows, last, "odvg", "coco")
    assert by_id(json.loads(last.read_bytes())) == by_id(document)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=coco_documents())
def test_every_box_of_a_grounding_row_points_to_the_name_of_its_class(tmp_path, document) -> None:
    source, out = tmp_path / "a.json", tmp_path / "rows.jsonl"
    source.write_text(json.dumps(document), "utf-8")
    run(source, out, "coco", "grounding")
    names = {category["id"]: category["name"] for category in document["categories"]}
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert [row["filename"] for row in rows] == [image["file_name"] for image in document["images"]]
    for row, image in zip(rows, document["images"], strict=True):
        found = []
        for region in row["grounding"]["regions"]:
            boxes = region["bbox"]
            boxes = boxes if isinstance(boxes[0], list) else [boxes]
            ((start, end),) = region["tokens_positive"]
            words = row["grounding"]["caption"][start:end]
            assert words == region["phrase"]
            found += [(words, box) for box in boxes]
        expected = []
        for item in document["annotations"]:
            if item["image_id"] == image["id"] and not item["iscrowd"]:
                x, y, w, h = item["bbox"]
                name = readable_name(names[item["category_id"]])
                expected.append((name, [x, y, x + w, y + h]))
        assert sorted(found) == sorted(expected)


def test_crowd_boxes_are_left_out_of_rows_and_counted(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 5, "bbox": [0, 0, 3, 3], "iscrowd": i % 2}
            for i in range(4)
        ],
        "categories": [{"id": 5, "name": "cat"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    ledger = run(path, tmp_path / "rows.jsonl", "coco", "odvg")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert len(row["detection"]["instances"]) == 2
    assert ledger.counts == {"crowd or difficult object left out of the row": 2}


def test_rows_without_their_source_file_get_new_ids_and_categories_from_phrases(tmp_path) -> None:
    row = {
        "filename": "a.jpg",
        "height": 10,
        "width": 20,
        "grounding": {
            "caption": "a red ball on grass",
            "regions": [
                {"bbox": [1, 2, 4, 6], "phrase": "a red ball", "tokens_positive": [[0, 10]]},
                {
                    "bbox": [[0, 0, 9, 9], [2, 2, 8, 8]],
                    "phrase": ["red", "grass"],
                    "tokens_positive": [[2, 5], [14, 19]],
                },
            ],
        },
        "tags": ["ball"],
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    run(path, tmp_path / "a.json", "grounding", "coco")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["categories"] == [
        {"id": 1, "name": "a red ball"},
        {"id": 2, "name": "red grass"},
    ]
    assert document["images"] == [
        {
            "id": 1,
            "file_name": "a.jpg",
            "width": 20,
            "height": 10,
            "caption": "a red ball on grass",
            "tags": ["ball"],
        }
    ]
    assert [item["category_id"] for item in document["annotations"]] == [1, 2, 2]
    assert document["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 2, 3, 4],
        "area": 12,
        "iscrowd": 0,
        "tokens_positive": [[0, 10]],
    }


@pytest.mark.parametrize("form", ["grounding", "odvg"])
def test_rows_converted_to_their_own_form_stay_the_same(tmp_path: Path, form: str) -> None:
    rows = [
        {
            "filename": "a.jpg",
            "height": 10,
            "width": 20,
            "grounding": {
                "caption": "a red ball on grass",
                "regions": [
                    {"bbox": [1, 2, 4, 6], "phrase": "a red ball", "tokens_positive": [[0, 10]]},
                    {
                        "bbox": [[0, 0, 9, 9], [2, 2, 8, 8]],
                        "phrase": "grass",
                        "tokens_positive": [[14, 19]],
                    },
                ],
            },
            "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}],
        }
    ]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run(path, out, form, form)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
