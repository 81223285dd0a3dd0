"""Labelling from beginning to end with an engine that knows the answers."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from llmdet.chat import Pace
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.pictures import PictureSet
from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError
from llmdet.labelling.review import read_report
from llmdet.labelling.run import LabelJob
from llmdet.labelling.settings import LabelSettings, OutputSettings

CONFIG = Config({"model": {"type": "Tiny"}})
CLASSES = ("dog", "stop sign")
COUNT = 7


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    paths = [folder / ("sub" if number % 2 else "") / f"p {number}.png" for number in range(COUNT)]
    for path in paths:
        Image.new("RGB", (64, 48), "gray").save(path)
    return PictureSet.of(paths)


class Engine:
    """Each picture has boxes by its number; picture 5 is damaged."""

    def __init__(self, stop_at=-1, stop=None, captions=False, batch_size=1):
        self.pace = Pace(batch_size)
        self.stop_at, self.stop, self.captions, self.seen = stop_at, stop, captions, []

    def answer(self, filenames):
        return [self.look(filename) for filename in filenames]

    def look(self, filename):
        number = int(filename[-5])
        if number == self.stop_at:
            self.stop()
        self.seen.append(number)
        if number == 5:
            return Outcome(None, problem=f"the picture {filename} cannot be read")
        count = number % 3
        row = {
            "filename": filename,
            "width": 64,
            "height": 48,
            "boxes": [[1.5, 2.25, 10.0 + k, 40.13] for k in range(count)],
            "labels": [k % 2 for k in range(count)],
            "scores": [0.9 - 0.1 * k for k in range(count)],
            "doubt": 0.05 if number == 2 else 0.5,
        }
        if self.captions:
            row |= {"description": f"Picture {number}.", "captions": ["A big dog."] * count}
        return Outcome(row)


def job_of(pictures, out, target="coco", **changes):
    output = {key: changes.pop(key) for key in ("val", "seed", "copy") if key in changes}
    settings = LabelSettings(CLASSES, **changes)
    return LabelJob(pictures, settings, OutputSettings(target, **{"val": 0.3, **output}), out)


def run(job, engine):
    with job.journal(CONFIG, None) as journal:
        return job.run(engine, journal)


def read(path, split=None, **options):
    return list(open_source(path, None, ReadOptions(split=split, **options), Ledger()).samples)


def boxes_of(samples):
    return {
        sample.filename: [(*np.round(box.bbox, 4).tolist(), box.label) for box in sample.instances]
        for sample in samples
    }


def expected(pictures):
    rows = [Engine().look(name).row for name in pictures.filenames]
    return {
        row["filename"]: [(*b, label) for b, label in zip(row["boxes"], row["labels"], strict=True)]
        for row in rows
        if row
    }


@pytest.mark.parametrize("target", ["coco", "yolo", "voc", "odvg", "grounding"])
@pytest.mark.parametrize("copy", [False, True])
def test_every_format_reads_back_with_its_pictures(pictures, tmp_path, target, copy):
    out = tmp_path / "out"
    report = run(job_of(pictures, out, target, copy=copy), Engine(batch_size=2))
    assert report.splits == {"train": 4, "val": 2}
    found = {}
    for split in ("train", "val"):
        name = {"coco": f"instances_{split}.json", "odvg": f"{split}.jsonl"}
        name["grounding"] = name["odvg"]
        classes = out / "classes.txt" if target == "voc" else None
        found |= boxes_of(read(out / name.get(target, ""), split, classes=classes))
    if target == "grounding":  # phrases have no class number
        found = {
            name: [
                (*b[:4], CLASSES.index(n))
                for b, n in zip(boxes, (CLASSES[k % 2] for k in range(len(boxes))), strict=True)
            ]
            for name, boxes in found.items()
        }
    assert found == expected(pictures)
    folder = out / ("JPEGImages" if target == "voc" else "images")
    assert folder.is_symlink() is not copy
    assert all((folder / name).is_file() for name in found)


def test_boxes_keep_their_scores_and_counts_are_reported(pictures, tmp_path):
    report = run(job_of(pictures, tmp_path / "out"), Engine())
    document = json.loads((tmp_path / "out" / "instances_train.json").read_text())
    assert {annotation["score"] for annotation in document["annotations"]} <= {0.9, 0.8}
    assert [category["name"] for category in document["categories"]] == list(CLASSES)
    assert report.boxes == {"dog": 3, "stop sign": 1}
    assert (report.pictures, report.without_boxes, report.doubtful) == (6, 3, 1)
    assert report.damaged == ["the picture sub/p 5.png cannot be read"]
    assert "could not be read: 1\n  the picture sub/p 5.png" in report.text()
    assert read_report(tmp_path / "out") == report
    doubtful = (tmp_path / "out" / "review.txt").read_text().splitlines()
    assert doubtful == [str(pictures.folder / "p 2.png")]
    with Image.open(tmp_path / "out" / "contact_sheet.jpg") as sheet:
        assert sheet.width > 1000


def test_captions_reach_the_rows_of_training(pictures, tmp_path):
    captions = frozenset({"image", "regions"})
    run(job_of(pictures, tmp_path / "out", "grounding", captions=captions), Engine(captions=True))
    rows = map(json.loads, (tmp_path / "out" / "train.jsonl").read_text().splitlines())
    rows = {row["filename"]: row for row in rows}
    row = next(row for row in rows.values() if row["grounding"]["regions"])
    assert row["conversations"][1]["value"].startswith("Picture ")
    region = row["grounding"]["regions"][0]
    assert region["phrase"] == "A big dog"
    ((start, end),) = region["tokens_positive"]
    assert row["grounding"]["caption"][start:end] == "dog"


def test_a_killed_labelling_repeats_only_what_was_in_flight(pictures, tmp_path):
    job = job_of(pictures, tmp_path / "out")
    order = [int(name[-5]) for name in pictures.filenames]

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(
        target=run, args=(job, Engine(order[4], kill, batch_size=2))
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert read_report(job.out) is None
    with (job.out / "journal.jsonl").open("ab") as file:
        file.write(b'{"number": 9, "row": {"filename": "torn')
    engine = Engine(batch_size=2)
    resumed = run(job, engine)
    assert engine.seen == order[4:]
    whole = run(job_of(pictures, tmp_path / "whole"), Engine())
    assert resumed == whole
    for name in ("instances_train.json", "instances_val.json"):
        assert (job.out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"threshold": 0.4}, r"begun with threshold 0\.3 \(now 0\.4\)\. Repeat .* another folder"),
        ({"target": "voc"}, r"target 'coco' \(now 'voc'\)"),
        ({"seed": 1}, r"seed 0 \(now 1\)"),
        ({"thresholds": {"dog": 0.9}}, r"thresholds \{\} \(now \{'dog': 0\.9\}\)"),
    ],
)
def test_labels_of_other_settings_are_never_overwritten(pictures, tmp_path, changes, difference):
    run(job_of(pictures, tmp_path / "out"), Engine())
    before = (tmp_path / "out" / "instances_train.json").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=difference):
        run(job_of(pictures, tmp_path / "out", **changes), Engine())
    assert (tmp_path / "out" / "instances_train.json").stat().st_mtime_ns == before


def test_a_folder_of_other_things_and_one_in_use_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"photos holds files that are no labelling"):
        run(job_of(pictures, pictures.folder), Engine())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run(job_of(pictures, tmp_path / "file"), Engine())
    job = job_of(pictures, tmp_path / "out")
    with job.journal(CONFIG, None), pytest.raises(ConfigError, match="Another process"):
        run(job, Engine())
    (tmp_path / "empty").mkdir()
    assert run(job_of(pictures, tmp_path / "empty"), Engine()).pictures == 6
