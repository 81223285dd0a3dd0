"""Rows of expressions are read in both schemas of Real-Data, and faults name their field."""

import json

import pytest

from llmdet.datasets.expressions import ExpressionPair
from llmdet.datasets.formats import ReadOptions, convert, open_source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.rows import read_row
from llmdet.datasets.statistics import collect
from llmdet.datasets.validate import ReportLedger, ValidationReport, validate
from llmdet.errors import DataError

DOG = {
    "bboxes": [[10, 20, 40.5, 30]],
    "category": "dog",
    "relation": "single",
    "positive_expressions": ["Brown dog on grass."],
    "negative_expressions": ["white cat on sofa"],
}
SEVERAL = {
    "bboxes": [[10, 20, 40, 30], [1, 2, 30, 30]],
    "category": "animal",
    "relation": "multiple",
    "postive_expressions": ["animals", "all animals"],
    "negative_expressions": [],
}


def row(**pairs):
    return {"filename": "a.jpg", "height": 40, "width": 60, "pairs": pairs}


def test_a_source_has_one_pair_or_a_list_in_either_spelling():
    read = read_row(row(vlm_short=DOG, llm=[SEVERAL, DOG]), "rows.jsonl:1").pairs
    assert read[0] == ExpressionPair(
        source="vlm_short",
        relation="single",
        boxes=[[10, 20, 40.5, 30]],
        category="dog",
        positives=("Brown dog on grass.",),
        negatives=("white cat on sofa",),
    )
    assert [(pair.source, pair.relation) for pair in read[1:]] == [
        ("llm", "multi"),
        ("llm", "single"),
    ]
    assert read[1].positives == ("animals", "all animals")
    assert read[1].negatives == ()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            {"llm": DOG | {"relation": "some"}},
            r"field 'pairs\.llm\.relation' is 'some', not one of",
        ),
        (
            {"llm": [DOG, DOG | {"bboxes": [[1, 2, 3]]}]},
            r"field 'pairs\.llm\[1\]\.bboxes\[0\]' must",
        ),
        (
            {"llm": DOG | {"positive_expressions": [3]}},
            r"'pairs\.llm\.positive_expressions' must be",
        ),
        ({"llm": "dog"}, r"field 'pairs\.llm' must be an object, not str"),
        ({"llm": {k: v for k, v in DOG.items() if k != "bboxes"}}, r"\.bboxes' is missing"),
    ],
)
def test_a_fault_names_file_line_and_field(pairs, message):
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .*" + message):
        read_row(row(**pairs), "rows.jsonl:7")


def test_a_row_has_one_form():
    values = row(llm=DOG) | {"grounding": {"caption": "a dog", "regions": []}}
    with pytest.raises(DataError, match="field 'pairs' stands beside 'grounding'"):
        read_row(values, "rows.jsonl:1")


def test_the_data_set_gives_every_box_the_number_of_its_pair(write_rows):
    outside = DOG | {"bboxes": [[70, 0, 90, 10]]}
    dataset = ODVGDataset(ann_file=str(write_rows(row(llm=[outside, SEVERAL], vlm_long=DOG))))
    info = dataset[0]
    assert [(i["bbox_label"], i["bbox"][0]) for i in info["instances"]] == [
        (1, 10),
        (1, 1),
        (2, 10),
    ]
    assert [pair.source for pair in info["expressions"]] == ["llm", "llm", "vlm_long"]
    assert "text" not in info
    assert dataset.dropped.counts == {"box outside the image": 1}


def test_expressions_are_refused_where_classes_are_expected(write_rows, write_json):
    labels = write_json("labels.json", {"0": "dog"})
    dataset = ODVGDataset(ann_file=str(write_rows(row(llm=DOG))), label_map_file=str(labels))
    with pytest.raises(DataError, match=r":1: field 'detection' is missing: .* expression form"):
        dataset[0]


def test_the_validator_counts_expressions_and_names_contradictions(write_rows):
    both = DOG | {"negative_expressions": ["brown dog  on grass", "."]}
    alone = SEVERAL | {"relation": "single", "category": "", "postive_expressions": []}
    broken = DOG | {"relation": ""}
    path = write_rows(row(llm=[both, alone]), row(vlm_long=broken))
    report = ValidationReport()
    validate(open_source(path, "odvg", ReadOptions(), ReportLedger(report)), report)
    assert report.facts["expression pairs"] == 2
    assert (report.facts["positive expressions"], report.facts["negative expressions"]) == (1, 2)
    contradiction, broken_row = report.errors.items()
    assert contradiction[0] == "expression that is positive and negative of the same boxes"
    assert f"{path}:1: pairs.llm" in contradiction[1][0]
    assert f"{path}:2: field 'pairs.vlm_long.relation'" in broken_row[1][0]
    assert set(report.notes) == {
        "expression without a word, will be left out",
        "pair with neither a positive expression nor a category",
        "relation 'single' with several boxes",
    }


def test_statistics_count_expressions_their_words_and_tokens(write_rows):
    source = open_source(write_rows(row(llm=[DOG, SEVERAL])), None, ReadOptions(), Ledger())
    counted = collect(source.samples, count_tokens=len)
    assert counted.facts["positive expressions"] == 3
    assert dict(counted.words_per_phrase.counts) == {4: 1, 1: 1, 2: 1}
    assert counted.tokens_per_text.summary()["max"] == len("Brown dog on grass.")
    assert counted.classes == {"dog": 1, "animal": 2}


def test_expressions_are_not_converted_into_formats_that_cannot_hold_them(write_rows, tmp_path):
    path = write_rows(row(llm=DOG))
    assert json.loads(path.read_text())["pairs"]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: field 'pairs' has no place"):
        convert(path, tmp_path / "out.json", "odvg", "coco", options=ReadOptions(), ledger=Ledger())
    assert not (tmp_path / "out.json").exists()
