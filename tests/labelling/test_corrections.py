"""Decisions of a person reach the data set, and nothing else is lost."""

import json
import os

import pytest

from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError
from llmdet.labelling.corrections import Corrections
from llmdet.labelling.output import annotation_files
from llmdet.labelling.review import read_report

FILES = {"coco": "instances_{}.json", "odvg": "{}.jsonl", "grounding": "{}.jsonl"}


def read(corrections):
    """Picture -> class names of its boxes, as the files of all splits say."""
    job, found = corrections.job, {}
    for split in ("train", "val"):
        classes = job.out / "classes.txt" if job.output.target == "voc" else None
        name = FILES.get(job.output.target, "").format(split)
        options = ReadOptions(split=split, classes=classes)
        for sample in open_source(job.out / name, None, options, Ledger()).samples:
            found[sample.filename] = [str(box.phrase) for box in sample.instances]
    return found


BEFORE = {"a.png": ["dog", "stop sign"], "b.png": ["stop sign", "dog"], "c.png": ["cat"]}
AFTER = {"a.png": ["dog", "cat"], "b.png": ["stop sign"], "c.png": ["cat"]}


def decide(review):
    """b's dog is none, its stop sign is one, and a's stop sign is a cat."""
    places = {(box.name, review.classes[box.label]): i for i, box in enumerate(review.boxes)}
    review.decide(places["b.png", "dog"], None)
    review.decide(places["b.png", "stop sign"], 1)
    review.decide(places["a.png", "stop sign"], 2)


@pytest.mark.parametrize("target", ["coco", "yolo", "voc", "odvg"])
def test_decisions_reach_the_files_of_every_format(labelled, target):
    corrections = labelled(target)
    out = corrections.job.out
    first = {f.relative_to(out): f.read_bytes() for f in annotation_files(out, target)}
    assert len(first) >= 2
    review = corrections.review()
    assert [box.name for box in review.boxes] == ["b.png", "b.png", "a.png"]  # nearest first
    decide(review)
    assert [review.decision(i) for i in range(3)] == ["keep", "drop", "now cat"]
    assert review.save().startswith("Saved: 3 decisions, 4 boxes in 4 pictures")
    assert read(corrections) == {**AFTER, "d.png": []}
    kept = corrections.job.out / "before_review"
    assert {file: (kept / file).read_bytes() for file in first} == first
    assert read_report(corrections.job.out).boxes == {"dog": 1, "stop sign": 1, "cat": 2}


def test_who_names_another_class_is_certain(labelled):
    corrections = labelled()
    review = corrections.review()
    decide(review)
    review.save()
    scores = {}
    for split in ("train", "val"):
        document = json.loads((corrections.job.out / f"instances_{split}.json").read_text())
        names = {image["id"]: image["file_name"] for image in document["images"]}
        for box in document["annotations"]:
            scores.setdefault(names[box["image_id"]], []).append(box["score"])
    assert scores == {"a.png": [0.9, 1.0], "b.png": [0.31], "c.png": [0.8]}


def test_a_later_review_knows_the_decisions_and_may_change_them(labelled):
    corrections = labelled()
    review = corrections.review()
    decide(review)
    review.save()
    again = Corrections(corrections.job, corrections.journal).review()
    assert sorted(again.decision(i) for i in range(3)) == ["drop", "keep", "now cat"]
    for position, box in enumerate(again.boxes):
        again.decide(position, box.label)
    again.save()
    assert read(corrections) == {**BEFORE, "d.png": []}


def test_undecided_boxes_come_before_decided_ones(labelled):
    corrections = labelled()
    review = corrections.review()
    review.decide(0, None)
    review.save()
    again = corrections.review()
    assert [again.decision(i) for i in range(3)] == ["", "", "drop"]


def test_corrections_by_hand_are_not_lost(labelled):
    corrections = labelled()
    file = corrections.job.out / "instances_train.json"
    first, review = file.read_bytes(), corrections.review()
    decide(review)
    file.write_bytes(first.replace(b"0.9", b"0.8"))
    with pytest.raises(DataError, match="were changed after they were written"):
        review.save()
    assert b"0.8" in file.read_bytes()
    file.write_bytes(first)
    review.save()
    file.write_bytes(b"{}")
    with pytest.raises(DataError, match="put those of before_review back and save again"):
        review.save()
    for kept in (corrections.job.out / "before_review").iterdir():
        os.replace(kept, corrections.job.out / kept.name)
    review.save()
    assert read(corrections) == {**AFTER, "d.png": []}


def test_saving_waits_for_no_other_process_and_reads_no_other_file(labelled):
    corrections = labelled()
    review = corrections.review()
    with corrections.job.alone(), pytest.raises(ConfigError, match="Another process"):
        review.save()
    (corrections.job.out / "review.json").write_text('{"decisions": {"a.png": {"0": "horse"}}}')
    with pytest.raises(DataError, match=r"review\.json does not hold the decisions"):
        corrections.review()


def test_the_list_says_what_is_shown_and_draws_it(labelled):
    review = labelled().review()
    assert review.rows()[0] == ["b.png", "stop sign", 0.31, ""]
    assert review.sentence(0) == "1 of 3: stop sign, score 0.31, in b.png"
    assert review.draw(0).shape[2] == 3
