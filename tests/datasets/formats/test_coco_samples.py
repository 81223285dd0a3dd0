"""COCO's relatives and MDETR's text-grounded files."""

import json
from pathlib import Path

import pytest

from llmdet.datasets.formats import ReadOptions, convert
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError


def run(document: dict, tmp_path: Path, source: str, target: str = "odvg", **ledger):
    path, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    path.write_text(json.dumps(document))
    book = Ledger(**ledger)
    convert(path, out, source, target, options=ReadOptions(), ledger=book)
    return [json.loads(line) for line in out.read_text().splitlines()], book


def document(**changes) -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 30, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 30, "name": "b"}, {"id": 12, "name": "a"}],
    } | changes


def test_category_ids_may_start_anywhere_and_have_holes(tmp_path: Path) -> None:
    rows, _ = run(document(), tmp_path, "coco")
    assert rows[0]["detection"]["instances"] == [
        {"bbox": [1, 2, 4, 6], "label": 0, "category": "b"}
    ]
    label_map = json.loads((tmp_path / "out_label_map.json").read_text())
    assert label_map == {"0": "b", "1": "a"}


def test_images_without_boxes_stay_as_negatives(tmp_path: Path) -> None:
    for target in ("odvg", "grounding"):
        rows, _ = run(document(annotations=[]), tmp_path, "coco", target)
        assert len(rows) == 1


def test_captions_of_a_coco_image_reach_the_row(tmp_path: Path) -> None:
    images = document()["images"]
    images[0]["conversations"] = [{"from": "gpt", "value": "A cat."}]
    rows, _ = run(document(images=images), tmp_path, "coco")
    assert rows[0]["conversations"] == [{"from": "gpt", "value": "A cat."}]


def test_lvis_images_are_named_by_their_url_and_restored_without_a_file_name(tmp_path) -> None:
    image = {
        "id": 7,
        "coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg",
        "width": 100,
        "height": 50,
        "neg_category_ids": [12],
    }
    given = document(images=[image], categories=[{"id": 30, "name": "bow_(weapon)"}])
    rows, _ = run(given, tmp_path, "lvis", "grounding")
    assert rows[0]["filename"] == "train2017/000000000007.jpg"
    assert rows[0]["grounding"]["caption"] == "bow"
    back = tmp_path / "back.json"
    convert(
        tmp_path / "out.jsonl",
        back,
        "grounding",
        "coco",
        options=ReadOptions(),
        ledger=Ledger(),
    )
    assert json.loads(back.read_text()) == given


def test_objects365_names_lose_the_folders_that_the_archives_lack(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "images/v2/patch8/x.jpg", "width": 9, "height": 9}]
    rows, _ = run(document(images=images), tmp_path, "objects365")
    assert rows[0]["filename"] == "patch8/x.jpg"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, r"in\.json: the file has no categories"),
        ({"categories": [{"id": 30, "name": " "}]}, "a category lacks its name"),
        ({"categories": [{"id": 3, "name": "a"}] * 2}, "the category id 3 appears twice"),
        ({"categories": [{"id": 3, "name": "a"}]}, r"annotation id 1: no category has the id 30"),
        ({"images": []}, "there are no images"),
        ({"images": {}}, "'images' is not a list"),
        ({"images": [{"id": 7}]}, "image id 7 has neither file_name nor coco_url"),
        ({"images": [{"id": 7, "file_name": "a"}] * 2}, "the image id 7 appears twice"),
        ({"images": [{"file_name": "a"}]}, "has no id"),
        ({"annotations": [{"id": 1, "image_id": 8}]}, "name the image id 8, which is none"),
        ({"annotations": [{"id": 1}]}, "has no image_id"),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 30, "bbox": [1, 2, 3]}]},
            r"annotation id 1: bbox \[1, 2, 3\] is not four numbers",
        ),
    ],
)
def test_faults_of_a_coco_file_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(document(**changes), tmp_path, "coco")


def test_permitted_broken_images_are_skipped_counted_and_the_rest_kept(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)]
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 30, "bbox": None},
        {"id": 2, "image_id": 2, "category_id": 30, "bbox": [0, 0, 1, 1]},
        {"id": 3, "image_id": 99, "category_id": 30, "bbox": [0, 0, 1, 1]},
    ]
    given = document(images=images, annotations=annotations)
    rows, ledger = run(given, tmp_path, "coco", max_bad_rows=2)
    assert [row["filename"] for row in rows] == ["1.jpg", "2.jpg"]
    assert ledger.counts["broken record"] == 2
    with pytest.raises(DataError, match=r"more than max_bad_rows=1"):
        run(given, tmp_path, "coco", max_bad_rows=1)


def test_classes_of_one_name_are_refused_where_a_label_map_could_not_tell_them(tmp_path) -> None:
    given = document(categories=[{"id": 30, "name": "a"}, {"id": 31, "name": "a"}])
    with pytest.raises(DataError, match="categories 30 and 31 are both called 'a'"):
        run(given, tmp_path, "coco")


def test_the_output_never_overwrites_the_input(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="would overwrite the input"):
        convert(path, path, "coco", "coco", options=ReadOptions(), ledger=Ledger())


def test_a_failed_conversion_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(document(categories=[{"id": 3, "name": "a"}]), tmp_path, "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


# --------------------------------------------------------------------------- MDETR


def mdetr(spans: list | None = None) -> dict:
    annotation = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [1, 2, 3, 4],
        "area": 12,
        "iscrowd": 0,
        "original_id": 1719310,
        "tokens_positive": spans,
    }
    if spans is None:
        del annotation["tokens_positive"]
    return {
        "info": [],
        "licenses": [],
        "images": [
            {
                "id": 7,
                "file_name": "COCO_train2014_000000581857.jpg",
                "width": 100,
                "height": 50,
                "caption": "the lady with the blue shirt",
                "dataset_name": "refcoco",
                "tokens_negative": [[0, 28]],
                "original_id": 581857,
            }
        ],
        "annotations": [annotation],
        "categories": [{"supercategory": "object", "id": 1, "name": "object"}],
    }


@pytest.mark.parametrize("target", ["grounding", "odvg"])
def test_referring_expressions_become_grounding_rows(tmp_path: Path, target: str) -> None:
    rows, _ = run(mdetr([[0, 8]]), tmp_path, "refcoco", target)
    assert rows == [
        {
            "filename": "COCO_train2014_000000581857.jpg",
            "height": 50,
            "width": 100,
            "grounding": {
                "caption": "the lady with the blue shirt",
                "regions": [
                    {"bbox": [1, 2, 4, 6], "phrase": "the lady", "tokens_positive": [[0, 8]]}
                ],
            },
        }
    ]


def test_an_expression_without_spans_names_its_box_as_a_whole(tmp_path: Path) -> None:
    rows, _ = run(mdetr(None), tmp_path, "refcoco")
    assert rows[0]["grounding"]["regions"][0]["tokens_positive"] == [[0, 28]]


def test_boxes_with_the_same_words_share_a_region_and_several_spans_give_several_words(tmp_path):
    given = mdetr([[4, 8], [18, 22]])
    given["annotations"].append({**given["annotations"][0], "id": 2, "bbox": [5, 5, 5, 5]})
    rows, _ = run(given, tmp_path, "flickr30k")
    assert rows[0]["grounding"]["regions"] == [
        {
            "bbox": [[1, 2, 4, 6], [5, 5, 10, 10]],
            "phrase": ["lady", "blue"],
            "tokens_positive": [[4, 8], [18, 22]],
        }
    ]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (None, "tokens_positive is missing"),
        ([], "tokens_positive is missing"),
        ([[20, 40]], r"\[20, 40\], which is no part of the caption's 28 characters"),
        ([[5, 5]], r"\[5, 5\], which is no part"),
        ([[1]], r"\[1\], which is not a \[start, end\) pair"),
    ],
)
def test_wrong_spans_are_named(tmp_path: Path, spans, message: str) -> None:
    with pytest.raises(DataError, match=f"annotation id 1: .*{message}"):
        run(mdetr(spans), tmp_path, "flickr30k")


def test_mdetr_files_survive_the_round_trip(tmp_path: Path) -> None:
    given = mdetr([[0, 8]])
    run(given, tmp_path, "refcoco", "grounding")
    convert(
        tmp_path / "out.jsonl",
        tmp_path / "back.json",
        "grounding",
        "coco",
        options=ReadOptions(),
        ledger=Ledger(),
    )
    assert json.loads((tmp_path / "back.json").read_text()) == given
