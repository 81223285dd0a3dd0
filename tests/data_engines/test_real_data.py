"""Detections become expressions: what is asked, what is left out, and which rows are made."""

import json
from pathlib import Path

import pytest
from PIL import Image

from llmdet.chat import Pace
from llmdet.data_engines.annotations import Annotations
from llmdet.data_engines.journal import Journal
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.data_engines.real_data import (
    CAPTIONER,
    DIVERSIFIER,
    FILTER,
    NOTHING_LEFT,
    TOO_SMALL,
    UNLIKE,
    ExpressionSettings,
    write_expressions,
)
from llmdet.data_engines.real_data_prompts import accepted_expression, accepted_lines
from llmdet.data_engines.real_data_rows import write_real_data
from llmdet.data_engines.real_lod_records import read_sample
from llmdet.data_engines.similarity import SimilarityFilter
from llmdet.datasets.ledger import Ledger

NAMES = ("cup", "dog")
SETTINGS = ExpressionSettings(objects=2, more=2, min_words=3)


class Captioner:
    pace = Pace(4)

    def answer(self, requests) -> list[str]:
        return [self.say(*request.messages) for request in requests]

    def say(self, message) -> str:
        (image,) = message.images
        name = next(name for name in NAMES if name in message.text)
        if "phrase" in message.text:
            assert image.size == (20, 30)
            return f"Red {image.getpixel((5, 5))[0]} {name}."
        assert image.size == (60, 40)
        assert (255, 0, 0) in {color for _, color in image.getcolors()}  # the line
        if "sentence" in message.text:
            return f"A {name} in the red frame." if name == "dog" else f"the {name} on the left"
        return f"A {name} stands in a blue room."


class Diversifier:
    pace = Pace(1, 2)

    def answer(self, requests) -> list[str]:
        (request,) = requests
        (message,) = request.messages
        assert not message.images
        name = next(name for name in NAMES if f"there is a {name}" in message.text)
        assert f"A {name} stands in a blue room." in message.text
        return [f"1. {name} of a blue room\n\n- The {name} on the left\n3) third {name}"]


class WordSimilarity:
    """Longer texts are more alike."""

    pace = Pace(8)

    def answer(self, requests) -> list[float]:
        return [len(pair.text) / 100 for pair in requests]


@pytest.fixture
def coco(tmp_path: Path) -> Annotations:
    """A picture with a cup, a dog and a thing too small, one with a cup, and an empty one."""
    images, annotations = [], []
    things = {0: [(1, [0, 5, 20, 30]), (2, [30, 5, 20, 30])], 1: [(1, [0, 5, 20, 30])], 2: []}
    things[0].append((2, [50, 0, 4, 4]))
    for number, boxes in things.items():
        image = Image.new("RGB", (60, 40), (0, 0, 100))
        image.paste((10 * number, 0, 0), (0, 0, 30, 40))
        image.save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
        for category, box in boxes:
            one = {"image_id": number, "category_id": category, "bbox": box}
            annotations.append(one | {"id": len(annotations)})
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(document))
    return Annotations(tmp_path / "a.json", tmp_path)


def run(coco: Annotations, keep=SimilarityFilter(0.0), settings=SETTINGS):  # noqa: B008
    folder, ledger = coco.images, Ledger()
    models = {CAPTIONER: Captioner(), DIVERSIFIER: Diversifier(), FILTER: WordSimilarity()}
    journal = Journal(folder / "x.partial", {})
    out = folder / "expressions.jsonl"
    count = write_expressions(coco, journal, out, models, settings, keep, ledger)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == count
    return records, ledger


def test_every_object_gets_expressions_of_three_sources(coco) -> None:
    records, ledger = run(coco, settings=ExpressionSettings(objects=3, more=2, min_words=3))
    assert [(r["image_path"], r["source"], r["raw_expression"]) for r in records] == [
        ("0.png", "vlm_short", "Red 0 cup"),
        ("0.png", "vlm_long", "the cup on the left"),
        ("0.png", "llm", "cup of a blue room"),
        ("0.png", "vlm_short", "Red 0 dog"),
        ("0.png", "llm", "dog of a blue room"),
        ("0.png", "llm", "The dog on the left"),
        ("1.png", "vlm_short", "Red 10 cup"),
        ("1.png", "vlm_long", "the cup on the left"),
        ("1.png", "llm", "cup of a blue room"),
    ]
    assert ledger.counts == {
        "long expression speaks of the frame, left out": 1,
        TOO_SMALL: 1,
        NOTHING_LEFT: 1,
    }
    dog = read_sample(records[3], "here")
    assert dog.chosen[0].box == (30, 5, 50, 35)
    assert [other.category for other in dog.others] == ["cup", "dog"]
    assert dog.caption == "A dog stands in a blue room."


def test_what_fits_its_object_least_is_left_out(coco) -> None:
    records, ledger = run(coco, SimilarityFilter(min_similarity=0.18))
    assert {r["raw_expression"] for r in records} == {
        "the cup on the left",
        "cup of a blue room",
        "dog of a blue room",
        "The dog on the left",
    }
    assert ledger.counts[UNLIKE] == 3


def test_a_row_has_the_pairs_of_its_picture_and_negatives_of_other_classes(coco) -> None:
    run(coco)
    out = coco.images / "rows.jsonl"
    assert write_real_data(coco.images / "expressions.jsonl", out, negatives=2) == 2
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["filename"], first["height"], first["width"]) == ("0.png", 40, 60)
    assert [(pair["category"], pair["bboxes"]) for pair in first["pairs"]["vlm_short"]] == [
        ("cup", [[0, 5, 20, 35]]),
        ("dog", [[30, 5, 50, 35]]),
    ]
    dog = first["pairs"]["llm"][1]
    assert dog["positive_expressions"] == ["dog of a blue room", "the dog on the left"]
    assert dog["relation"] == "single"
    # A cup is in every picture, so that only the second one can have negatives: of dogs.
    assert all(not p["negative_expressions"] for pairs in first["pairs"].values() for p in pairs)
    for (pair,) in second["pairs"].values():
        assert len(pair["negative_expressions"]) == 2
        assert all("dog" in text for text in pair["negative_expressions"])
    again = coco.images / "again.jsonl"
    write_real_data(coco.images / "expressions.jsonl", again, negatives=2)
    assert again.read_bytes() == out.read_bytes()


def test_a_refined_expression_stands_for_the_raw_one(coco) -> None:
    records, _ = run(coco)
    refined = coco.images / "refined.jsonl"
    refined.write_text(json.dumps(records[0] | {"refined_expression": "A black cup."}) + "\n")
    write_real_data(refined, coco.images / "rows.jsonl")
    (row,) = map(json.loads, (coco.images / "rows.jsonl").read_text().splitlines())
    assert row["pairs"]["vlm_short"][0]["positive_expressions"] == ["a black cup"]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("the dog inside the red bounding box", "speaks of the frame"),
        ("the dog near <region>", "holds a mark"),
        ("dog " * 41, "too long"),
        ("", "empty"),
    ],
)
def test_expressions_that_cannot_be_used(answer: str, fault: str) -> None:
    with pytest.raises(RejectedAnswerError, match=fault):
        accepted_expression(answer)


def test_usable_lines_are_taken_and_the_others_passed_over() -> None:
    answer = "Here are four:\n1. a dog\n2. a dog\n- dog in the red box\n* a brown dog\n\u2022 third"
    assert accepted_lines(answer.partition("\n")[2], 2) == ["a dog", "a brown dog"]
    with pytest.raises(RejectedAnswerError, match="speaks of the frame"):
        accepted_lines("dog in the red box\n\n", 2)
