"""Conversations about candidate objects: what is asked, among what, and what is left out."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from llmdet.datasets.candidate_files import Candidates
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.formats.tsv import expression_sample
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.tasks import SHARED_TEXT
from llmdet.datasets.retrieval import RetrievalSettings, write_retrieval
from llmdet.datasets.retrieval.questions import (
    BEYOND_IMAGE,
    NO_ABSENT,
    NOT_ALL,
    NOTHING,
    ONE_CLASS,
    TOO_MANY,
)
from llmdet.datasets.retrieval.scenes import CUT_PHRASE
from llmdet.datasets.retrieval.settings import TASKS
from llmdet.datasets.retrieval.writing import NO_PROPOSALS
from llmdet.datasets.rows import read_row
from llmdet.datasets.transforms.objects import MixCandidates
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.object_questions import DETECT, NAME, Wordings
from llmdet.prompts.objects import ABSENT, ObjectGrammar
from llmdet.utils.config import load_config

CLASSES = ["dog", "cat", "bow_(weapon)", "tree"]
SIZE = (100, 80)
GRAMMAR = ObjectGrammar()


def square(place):
    """One of 80 boxes that do not overlap."""
    x, y = 10 * (place % 10), 10 * (place // 10)
    return [x, y, x + 8, y + 8]


def detections(*pictures, **extra):
    """A source of boxes (place, class or None for a crowd of dogs), one list a picture."""
    samples = []
    for number, objects in enumerate(pictures):
        instances = [
            Instance(square(place), CLASSES[label or 0], label or 0, ignored=label is None)
            for place, label in objects
        ]
        fields = {"id": number, **extra}
        samples.append(
            Sample(f"{number}.jpg", *SIZE, instances, f"line {number}", extra=dict(fields))
        )
    categories = [{"id": 10 + number, "name": name} for number, name in enumerate(CLASSES)]
    return Source(iter(samples), len(samples), categories)


def expressions(*entries):
    """A source of (picture, places, text, places of others) as HumanRef has them."""
    samples = [
        expression_sample(
            f"{picture}.jpg",
            SIZE,
            text,
            list(map(square, places)),
            list(map(square, others)),
            "there",
            {"id": number, "original_id": picture},
        )
        for number, (picture, places, text, others) in enumerate(entries)
    ]
    return Source(iter(samples), len(samples))


WORDINGS = {key: Wordings([f"{key} [OBJ]?"], "Form.") for keys in TASKS.values() for key in keys}


def write(tmp_path, source, objects=None, **chosen):
    ledger, out = Ledger(), tmp_path / "rows.jsonl"
    settings = RetrievalSettings(**{"wordings": WORDINGS, "absent": 0.0, **chosen})
    write_retrieval(source, out, settings, ledger, objects)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        read_row(row, "row")  # every row is one that training reads
        assert len(row["regions"]) <= settings.candidates
    return rows, ledger


def said(row):
    """Question (without the form), answer, and boxes that the answer names by phrase."""
    turns = [turn["value"].removeprefix("<image>\n") for turn in row["conversations"]]
    boxes = [region["bbox"] for region in row["regions"]]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        phrases = GRAMMAR.parse(answer, len(boxes)).phrases
        named = {each.phrase: sorted(boxes[i] for i in each.indices) for each in phrases}
        yield question.removesuffix(" Form."), answer, named


def proposals(*places, picture=0):
    boxes = {picture: np.asarray(list(map(square, places)), np.float32)}
    return Candidates(boxes, {"file": "found.jsonl"})


def test_every_class_is_asked_for_with_all_its_objects(tmp_path):
    (row,), ledger = write(tmp_path, detections([(0, 0), (5, 1), (9, 0)]), task="detect")
    found = {question: named for question, _, named in said(row)}
    assert found == {
        "detect dog?": {"dog": [square(0), square(9)]},
        "detect cat?": {"cat": [square(5)]},
    }
    assert sorted(region["bbox"] for region in row["regions"]) == sorted(map(square, (0, 5, 9)))
    assert (row["task"], row["height"]) == ("detect", 80)
    assert not ledger.counts


def test_several_classes_are_asked_for_at_once_and_none_is_forgotten(tmp_path):
    source = detections([(n, n % 4) for n in range(8)], [(0, 0)], *[[(0, 0), (1, 1), (2, 3)]] * 20)
    rows, ledger = write(tmp_path, source, task="many", most_names=3)
    for row in rows:
        asked = [
            question.removeprefix("detect ").strip("?").split("; ") for question, *_ in said(row)
        ]
        assert all(2 <= len(names) <= 3 for names in asked)
        named = [list(each) for _, _, each in said(row)]
        assert asked == named
    assert {name for question, *_ in said(rows[0]) for name in re.findall(r"\w+", question)} == {
        *("detect", "dog", "cat", "bow", "tree"),
    }
    assert len(rows) == 21
    assert ledger.counts == {ONE_CLASS: 1, NOTHING: 1}


def test_counts_are_said_before_the_boxes(tmp_path):
    (row,), _ = write(tmp_path, detections([(0, 0), (9, 0)]), task="count")
    ((question, answer, named),) = said(row)
    assert question == "count dog?"
    assert answer.startswith("The number is 2: <ground>dog</ground>")
    assert named == {"dog": [square(0), square(9)]}


def test_an_object_is_named_by_its_number(tmp_path):
    (row,), _ = write(tmp_path, detections([(0, 0), (5, 2)]), task="name", one_wording=True)
    boxes = [region["bbox"] for region in row["regions"]]
    assert {question: list(named) for question, _, named in said(row)} == {
        f"name <obj{boxes.index(square(0))}>?": ["dog"],
        f"name <obj{boxes.index(square(5))}>?": ["bow"],
    }


def test_an_expression_means_all_its_objects_and_others_are_candidates(tmp_path):
    source = expressions(
        (3, [0, 1], "two men", [2]), (3, [2], "a boy.", [0, 1]), (3, [], "a nun", [0, 1, 2])
    )
    (row,), _ = write(tmp_path, source, task="refer", others=True, absent=0.1)
    assert {question: (answer, named) for question, answer, named in said(row)}.keys() == {
        "detect two men?",
        "detect a boy?",
        "detect a nun?",
    }
    for question, answer, named in said(row):
        if "nun" in question:
            assert answer == ABSENT
        elif "men" in question:
            assert named == {"two men": [square(0), square(1)]}
    assert len(row["regions"]) == 3
    source = expressions((3, [0], "a man", [2]), (4, [], "a nun", [1]))
    rows, ledger = write(tmp_path, source, task="refer", others=True)  # no rejections are wanted
    assert [row["filename"] for row in rows] == ["3.jpg"]
    assert ledger.counts == {NOTHING: 1}


def test_descriptions_are_asked_in_the_form_that_they_have(tmp_path):
    long = "A man with a hat who waves to the people behind"
    source = expressions(
        (1, [0], "a man", []), (1, [1], long, []), (1, [2], "A dog. It barks", []),
        (1, [3, 4], "twins", []),
    )  # fmt: skip
    (row,), ledger = write(tmp_path, source, task="describe")
    forms = {answer: question.split()[0] for question, _, named in said(row) for answer in named}
    assert forms == {"a man": "phrase", long: "sentence", "A dog. It barks": "describe"}
    assert ledger.counts == {SHARED_TEXT: 2}


def test_captions_name_the_boxes_of_their_phrases(tmp_path):
    text = "A man walks two dogs."
    spans = [([0, 5], 0), ([12, 20], 1), ([12, 20], 2), ([16, 20], 3)]
    instances = [Instance(square(place), "x", None, [span]) for span, place in spans]
    instances.append(Instance(square(4), ["A", "dogs"], None, [[0, 1], [16, 20]]))
    source = Source(iter([Sample("1.jpg", *SIZE, instances, "there", text)]), 1)
    (row,), ledger = write(tmp_path, source, task="caption")
    ((question, answer, named),) = said(row)
    assert question == "caption ?"
    assert re.sub(r"<.*?>", "", answer) == text
    assert named == {"A man": [square(0)], "two dogs": [square(1), square(2)]}
    assert ledger.counts == {CUT_PHRASE: 2}


def test_a_share_of_the_questions_is_about_what_is_not_there(tmp_path):
    source = detections(*[[(0, 0), (5, 1)] for _ in range(200)])
    rows, ledger = write(tmp_path, source, task="detect", absent=0.3)
    answers = Counter(answer == ABSENT for row in rows for _, answer, _ in said(row))
    assert 0.22 < answers[True] / answers.total() < 0.38
    asked = {q for row in rows for q, answer, _ in said(row) if answer == ABSENT}
    assert asked == {"detect bow?", "detect tree?"}
    assert not ledger.counts


def test_only_what_annotations_say_is_absent_is_taken_for_absent(tmp_path):
    source = detections([(0, 0), (5, 1)], neg_category_ids=[13])
    (row,), ledger = write(tmp_path, source, task="detect", absent=1.0, absence="said")
    assert sum(answer == ABSENT for _, answer, _ in said(row)) == 1
    assert "detect tree?" in {question for question, *_ in said(row)}
    assert ledger.counts == {NO_ABSENT: 1}
    _, ledger = write(tmp_path, detections([(0, 0)]), task="count", absent=1.0, absence="nothing")
    assert ledger.counts == {NO_ABSENT: 1}


def test_classes_that_are_not_annotated_whole_are_not_asked_for(tmp_path):
    source = detections(
        [(0, 0), (1, None), (5, 1)], [(0, 0), (5, 1)], not_exhaustive_category_ids=[11]
    )
    rows, ledger = write(tmp_path, source, task="detect")
    assert [question for row in rows for question, *_ in said(row)] == ["detect dog?"]
    assert ledger.counts == {NOT_ALL: 3, NOTHING: 1}


def test_proposals_that_are_no_object_fill_up_the_candidates(tmp_path):
    found = proposals(0, 20, 21, 22)
    (row,), ledger = write(
        tmp_path, detections([(0, 0), (1, 1)]), task="detect", proposals=found, candidates=4
    )
    places = sorted(region["bbox"] for region in row["regions"])
    assert places == sorted(map(square, (0, 1, 20, 21)))  # the best, and none that is an object
    assert not ledger.counts
    _, ledger = write(
        tmp_path, detections([(0, 0)]), task="detect", proposals=proposals(1, picture=7)
    )
    assert ledger.counts == {NO_PROPOSALS: 1}


def test_proposals_are_those_of_a_picture_or_of_a_sentence(tmp_path):
    found = proposals(30, picture=3)
    for kind, expected in (("picture", 2), ("sentence", 1)):
        source = expressions((3, [0], "a man", []))
        (row,), _ = write(tmp_path, source, task="refer", proposals=found, proposals_of=kind)
        assert len(row["regions"]) == expected


def test_the_order_of_candidates_tells_nothing(tmp_path):
    source = detections(*[[(n, 0) for n in range(4)] + [(9, 1)]] * 60)
    rows, _ = write(tmp_path, source, task="detect")
    places = Counter([region["bbox"] for region in row["regions"]].index(square(9)) for row in rows)
    assert set(places) == set(range(5))
    again, _ = write(
        tmp_path, detections(*[[(n, 0) for n in range(4)] + [(9, 1)]] * 60), task="detect"
    )
    assert rows == again


def test_questions_about_more_objects_than_candidates_and_beyond_the_cap_are_counted(tmp_path):
    source = detections([(n, 0) for n in range(6)] + [(9, 1)])
    (row,), ledger = write(tmp_path, source, task="detect", candidates=3)
    assert [question for question, *_ in said(row)] == ["detect cat?"]
    assert ledger.counts == {TOO_MANY: 1}
    assert len(row["regions"]) == 3
    _, ledger = write(tmp_path, detections([(n, n) for n in range(4)]), task="name", per_image=3)
    assert ledger.counts == {BEYOND_IMAGE: 1}


def test_rows_of_so_many_turns_are_mixed_again_at_every_epoch(tmp_path):
    rows, _ = write(tmp_path, detections([(n, n) for n in range(4)]), task="name", turns=3)
    assert [len(row["conversations"]) for row in rows] == [6, 2]
    row = read_row(rows[0], "row")
    results = {"regions": row.regions, "conversations": (row.conversation,)}
    mixed = MixCandidates()(results)
    texts = [turn.text for turn in mixed["conversations"][0].turns]
    named = GRAMMAR.parse(texts[1], 4).phrases[0]
    before = next(iter(said(rows[0])))[2]
    assert mixed["regions"].boxes[named.indices[0]].tolist() == before[named.phrase][0]


def test_what_annotations_cannot_be_asked_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="needs the classes of objects"):
        write(tmp_path, expressions((1, [0], "a man", [])), task="count")
    with pytest.raises(ConfigError, match="names of classes alone"):
        write(tmp_path, detections([(0, 0)]), task="refer")
    with pytest.raises(ConfigError, match="no wordings for name"):
        write(tmp_path, detections([(0, 0)]), task="name", wordings={})
    with pytest.raises(DataError, match="no row is left"):
        write(tmp_path, detections([(0, None)]), task="detect")
    with pytest.raises(ConfigError, match=r"absent=2\.0"):
        write(tmp_path, detections([(0, 0)]), task="detect", absent=2.0)


def test_tests_ask_in_the_first_wording_of_the_configs():
    wordings = load_config("configs/_base_/prompts/objects.py").object_wordings
    for question, key in ((DETECT, "detect"), (NAME, "name")):
        assert Wordings(**wordings[key]).ask("[OBJ]") == question
