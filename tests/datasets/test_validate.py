import json
from pathlib import Path

import pytest
from PIL import Image

from llmdet.datasets.formats import READERS, ReadOptions
from llmdet.datasets.validate import EXAMPLES_PER_CAUSE, ReportLedger, ValidationReport, validate


def region(box=(1, 1, 9, 9), phrase="red ball", spans=((2, 10),)) -> dict:
    return {"bbox": list(box), "phrase": phrase, "tokens_positive": [list(s) for s in spans]}


def row(*regions: dict, **changes) -> dict:
    grounding = {"caption": "a red ball on grass", "regions": list(regions)}
    return {"filename": "a.jpg", "width": 40, "height": 20, "grounding": grounding} | changes


def check(rows: list[dict | str], tmp_path: Path, images: Path | None = None) -> ValidationReport:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    report = ValidationReport()
    source = READERS["odvg"](path, ReadOptions(), ReportLedger(report))
    validate(source, report, images)
    return report


def test_a_clean_file_is_ready_and_counted(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A ball."}]
    report = check([row(region()), row(region(), filename="b.jpg", conversations=talk)], tmp_path)
    assert report.ok
    assert not report.notes
    assert report.facts == {"images": 2, "boxes": 2, "captions": 1}


@pytest.mark.parametrize(
    ("bad", "cause", "words"),
    [
        ("{", "broken record", "rows.jsonl:2: not a JSON object"),
        (row(region(), filename=7), "broken record", "field 'filename' must be a string"),
        (row(region(), width=None), "no width", "field 'width' is missing"),
        (
            row(region(), height=-3),
            "broken record",
            "field 'height' must be a positive",
        ),
        (
            row({"phrase": "x", "tokens_positive": [[0, 1]]}),
            "broken record",
            "'grounding.regions[0].bbox' is missing",
        ),
        (
            row(region(spans=((2, 99),))),
            "broken record",
            "'grounding.regions[0].tokens_positive' holds [2, 99], which is no part",
        ),
        (row(region(spans=((1, 2),))), "span without a word", "[[1, 2]] is [' ']"),
        (
            row(region(box=(9, 1, 2, 9))),
            "box with negative size (corners swapped, or x, y, width, height?)",
            "box [9, 1, 2, 9]",
        ),
        (
            row(region(), conversations=[{"from": "gpt", "value": "x"}]),
            "broken record",
            "'conversations[0].from' is 'gpt' where a turn of the user must stand",
        ),
        (
            row(
                region(),
                conversations=[{"from": "human", "value": "?"}, {"from": "gpt", "value": " "}],
            ),
            "empty caption",
            "field 'conversations'",
        ),
    ],
)
def test_an_error_names_file_line_and_field(tmp_path: Path, bad, cause: str, words: str) -> None:
    report = check([row(region(), filename="first.jpg"), bad], tmp_path)
    assert not report.ok
    assert list(report.errors) == [cause]
    (place,) = report.errors[cause]
    assert "rows.jsonl:2: " in place
    assert words in place


@pytest.mark.parametrize(
    ("odd", "cause"),
    [
        (row(region(box=(1, 1, 1.5, 9))), "box under 1 pixel, will be dropped"),
        (row(region(box=(50, 1, 60, 9))), "box outside the image, will be dropped"),
        (row(region(box=(-5, 1, 30, 9))), "box reaches beyond the image, will be clipped"),
        (row(region(phrase="dog")), "phrase differs from the words its spans point to"),
        (row(region(spans=((3, 10),))), "span begins or ends inside a word"),
        (row(), "sentence without boxes"),
        (row(region(), filename="first.jpg"), "the same picture and text again"),
    ],
)
def test_what_training_will_drop_or_looks_odd_is_a_note(tmp_path: Path, odd, cause: str) -> None:
    report = check([row(region(), filename="first.jpg"), odd], tmp_path)
    assert report.ok
    assert cause in report.notes
    assert "rows.jsonl:2" in report.notes[cause][0]


@pytest.mark.parametrize("phrase", ["Red Ball.", ["a thing", "red  ball"], ["red ball"]])
def test_a_phrase_may_differ_in_case_and_final_stop_or_be_one_of_several(tmp_path, phrase) -> None:
    assert not check([row(region(phrase=phrase))], tmp_path).notes


def test_pictures_are_compared_with_their_annotated_size(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg")
    Image.new("RGB", (20, 40)).save(tmp_path / "turned.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = ("a.jpg", "turned.jpg", "broken.jpg", "absent.jpg")
    report = check([row(region(), filename=name) for name in names], tmp_path, tmp_path)
    assert len(report.errors["picture missing or broken"]) == 2
    (place,) = report.errors["size differs from the picture's (turned by 90 degrees)"]
    assert "rows.jsonl:2: turned.jpg is 20x40, not 40x20" in place


def test_many_faults_of_one_kind_are_counted_and_the_first_listed(tmp_path: Path) -> None:
    report = check([row(region(), width=0, filename=f"{i}.jpg") for i in range(25)], tmp_path)
    assert report.counts["broken record"] == 25
    assert len(report.errors["broken record"]) == EXAMPLES_PER_CAUSE
    assert "... and 15 more" in report.text()


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    assert "there is no sample" in check([], tmp_path).errors


def test_repeated_annotation_ids_and_class_names_of_coco_are_errors(tmp_path: Path) -> None:
    box = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
        "annotations": [box, box],
        "categories": [{"id": 1, "name": "Dog"}, {"id": 2, "name": "dog"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    report = ValidationReport()
    validate(READERS["coco"](path, ReadOptions(), ReportLedger(report)), report)
    assert report.errors == {
        "classes that only differ in case or not at all": ["'dog'"],
        "annotation id used twice": [f"{path}: image id 1: annotation id 5"],
    }
