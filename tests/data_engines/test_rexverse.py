"""Rexverse: what a caption names is found, described, judged, and spoken of."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from llmdet.chat import Pace, Usage
from llmdet.data_engines.detections import Found
from llmdet.data_engines.flow import Shard
from llmdet.data_engines.pictures import PictureSet
from llmdet.data_engines.rexverse import (
    ANOTHER_THING,
    CAPTIONER,
    CHECKER,
    DESCRIBER,
    NO_PHRASE,
    NOT_FOUND,
    NOTHING_LEFT,
    SMALL,
    TOO_SMALL,
    UNFINDABLE,
    UNSUITED,
    WRITER,
    RexverseSettings,
    make_rexverse,
)
from llmdet.data_engines.rexverse_rows import TASKS, RexverseOutput
from llmdet.data_engines.runs import Run
from llmdet.datasets.ledger import BROKEN, Ledger
from llmdet.datasets.odvg import ODVGDataset
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.object_questions import Wordings
from llmdet.prompts.objects import ObjectGrammar
from llmdet.utils.config import load_config

SETTINGS = RexverseSettings(min_picture_side=30, margin=0.0, dialogue=2)
COUNT = 6
CAPTION = "A red tile lies beside two blue tiles and a yellow door on the floor."
#: Phrase -> boxes of a scene of 80 x 60 pixels and their scores; the door is nowhere.
FOUND = {
    "red tile": [([0, 0, 40, 40], 0.9)],
    "blue tiles": [([40, 0, 60, 20], 0.8), ([60, 0, 80, 20], 0.7), ([40, 0, 60, 21], 0.6)],
    "floor": [([0, 50, 80, 60], 0.5), ([70, 40, 75, 45], 0.4)],
}


class Speaker:
    """Says what a function makes of the words and the picture of a request."""

    def __init__(self, say, pace=None) -> None:
        self.say, self.pace, self.usage = say, pace or Pace(3), Usage()
        self.identity = {"model": "a"}
        self.asked: list[str] = []

    def answer(self, requests) -> list[str]:
        self.asked += [request.messages[0].text for request in requests]
        self.usage.add(len(requests), 0, 0)
        return [self.say(r.messages[0].text, *r.messages[0].images) for r in requests]


class Boxes:
    pace, identity = Pace(2), {"detector": "x"}

    def answer(self, requests):
        return [self.found(request) for request in requests]

    def found(self, search):
        pairs = [(p, *one) for p in search.phrases for one in FOUND.get(p, ())]
        return [
            Found(box, phrase, score) for phrase, box, score in sorted(pairs, key=lambda p: -p[2])
        ]


def describe(text, image):
    red, _, blue = image.getpixel((2, 2))
    return f"A smooth thing of red {red} and blue {blue} lies flat."


def check(text):
    about = text.partition("saw nothing else of the picture:\n")[2].partition("\n")[0]
    match = "no" if '"floor"' in text else "yes"
    return f"Match: {match}\nExpression: the flat {about[8:].partition(' lies')[0]}"


def converse(text):
    assert "[0] red tile: the flat thing of red" in text
    return "Q: What is red?\nA: [The tile](0).\nQ: And blue?\nA: Those [two](1, 2) are."


SAY = {
    CAPTIONER: lambda text, image: CAPTION,
    DESCRIBER: describe,
    CHECKER: check,
    WRITER: converse,
}


@pytest.fixture(scope="module")
def wordings(root):
    config = load_config(root / "configs" / "_base_" / "prompts" / "objects.py")
    return {task: Wordings(**given) for task, given in config.object_wordings.items()}


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    """Scenes of a red and two blue tiles on a grey floor."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        image = Image.new("RGB", (80, 60), (100, 100, 100))
        image.paste((200 + i, 0, 0), (0, 0, 40, 40))
        image.paste((0, 0, 150), (40, 0, 60, 20))
        image.paste((0, 0, 160), (60, 0, 80, 20))
        image.save(folder / f"{i}.png")
    return PictureSet.of(sorted(folder.iterdir()))


def speakers(**say):
    return {role: Speaker(talk) for role, talk in (SAY | say).items()}


def run(
    pictures, wordings, models=None, *, boxes=None, settings=SETTINGS, bad=0, by=None, **output
):
    ledger, out = Ledger(bad), pictures.folder.with_name("out.jsonl")
    written = RexverseOutput(wordings, **output)
    what = models or speakers(), boxes or Boxes(), settings, written, ledger
    count = make_rexverse(pictures, out, *what, by or Run())
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows, ledger


def test_a_picture_has_a_row_for_each_task(pictures, wordings) -> None:
    rows, ledger = run(pictures, wordings)
    assert [(row["filename"], row["task"]) for row in rows] == [
        (f"{i}.png", task) for i in range(COUNT) for task in TASKS
    ]
    assert ledger.counts == {
        NOT_FOUND: COUNT,  # the yellow door
        TOO_SMALL: 2 * COUNT,  # of the floor, 10 and 5 pixels
    }
    of_one = {row["task"]: row for row in rows[: len(TASKS)]}
    regions = of_one["detect"]["regions"]
    assert [(one["phrase"], one["bbox"], one["score"]) for one in regions] == [
        ("red tile", [0, 0, 40, 40], 0.9),
        ("blue tiles", [40, 0, 60, 20], 0.8),  # the same box of 0.6 is one with it
        ("blue tiles", [60, 0, 80, 20], 0.7),
    ]
    assert regions[0]["description"] == "A smooth thing of red 200 and blue 0 lies flat."
    assert regions[0]["expression"] == "the flat thing of red 200 and blue 0"
    red = "<ground>red tile</ground><objects><obj0></objects>"
    blue = "<ground>blue tiles</ground><objects><obj1><obj2></objects>"
    answers = {
        task: [t["value"] for t in row["conversations"][1::2]] for task, row in of_one.items()
    }
    assert answers["detect"] == [red, blue, f"{red}\n{blue}"]
    assert answers["caption"] == [f"A {red} lies beside two {blue} and a yellow door on the floor."]
    assert answers["name"][2] == "<ground>blue tiles</ground><objects><obj2></objects>"
    expressed = "<ground>the flat thing of red 0 and blue 160</ground><objects><obj2></objects>"
    assert answers["phrase"][2] == answers["refer"][2] == expressed
    assert answers["converse"] == [
        "<ground>The tile</ground><objects><obj0></objects>.",
        "Those <ground>two</ground><objects><obj1><obj2></objects> are.",
    ]


def test_questions_are_in_wordings_that_the_seed_draws(pictures, wordings) -> None:
    rows, _ = run(pictures, wordings, tasks=["name", "converse"], turns=2)
    asked = [[turn["value"] for turn in row["conversations"][::2]] for row in rows]
    assert all(len(turns) == 2 for turns in asked)
    assert all(first.startswith("<image>\n") and "<image>" not in second for first, second in asked)
    form = wordings["name"].form
    assert all(turns[0].endswith(form) and "<obj0>" in turns[0] for turns in asked[::2])
    assert all(turns[0].endswith("What is red?") for turns in asked[1::2])
    assert len({turns[0] for turns in asked[::2]}) > 1
    assert run(pictures, wordings, tasks=["name", "converse"], turns=2)[0] == rows
    assert run(pictures, wordings, tasks=["name", "converse"], turns=2, seed=1)[0] != rows
    with pytest.raises(ConfigError, match=r"the task 'nam'.*name"):
        RexverseOutput(wordings, ["nam"])
    with pytest.raises(ConfigError, match="have none for 'name'"):
        RexverseOutput({}, ["name"])


def test_rows_teach_a_model_that_names_candidates(pictures, wordings) -> None:
    init_default_scope("llmdet")
    run(pictures, wordings)
    dataset = ODVGDataset(
        data_root=str(pictures.folder.parent), ann_file="out.jsonl",
        data_prefix={"img": "pictures/"},
        filter_cfg={"filter_empty_gt": False}, use_uniform_prompt=False, clean_caption=False,
        pipeline=[{"type": "LoadImageFromFile"}, {"type": "MixCandidates"}],
    )  # fmt: skip
    assert len(dataset) == COUNT * len(TASKS)
    for number in range(len(TASKS)):
        results = dataset[number]
        (conversation,) = results["conversations"]
        first = conversation.turns[0].text
        assert first.startswith("<image>\n<obj0><region:0><obj1><region:1><obj2><region:2>\n")
        said = "".join(turn.text for turn in conversation.turns)
        phrases = ObjectGrammar().parse(said, 3).phrases
        for phrase in phrases:
            for index in phrase.indices if phrase.phrase == "red tile" else ():
                assert results["regions"].boxes[index].tolist() == [0, 0, 40, 40]


def test_what_is_left_out_is_counted_by_cause(pictures, wordings) -> None:
    Image.new("RGB", (29, 60)).save(pictures.folder / "1.png")

    def caption(text, image):
        red = image.getpixel((2, 2))[0]
        if "Answer yes" in text:
            return "No." if red == 202 else "Yes."
        return {203: "It is so.", 204: "A floor.", 205: "?"}.get(red, CAPTION)

    models = speakers(captioner=caption)
    settings = replace(SETTINGS, screen=True, min_side=6)
    rows, ledger = run(pictures, wordings, models, settings=settings)
    assert {row["filename"] for row in rows} == {"0.png"}
    assert ledger.counts == {
        SMALL: 1,
        UNSUITED: 1,
        NO_PHRASE: 1,
        "caption too short, left out": 2,  # "A floor." and "?"
        NOT_FOUND: 1,
        TOO_SMALL: 1,
        ANOTHER_THING: 1,
    }
    assert len(models[CAPTIONER].asked) == 5 + 4 + 2 * (SETTINGS.attempts - 1)


def test_a_picture_of_which_nothing_remains_asks_for_no_conversation(pictures, wordings) -> None:
    models = speakers(checker=lambda text: "Match: no")
    rows, ledger = run(pictures, wordings, models)
    assert rows == []
    assert ledger.counts[ANOTHER_THING] == 3 * COUNT
    assert ledger.counts[NOTHING_LEFT] == COUNT
    assert models[WRITER].asked == []


def test_a_detector_that_cannot_look_and_a_writer_that_cannot_write_cost_no_more(
    pictures, wordings
) -> None:
    class Unable(Boxes):
        def found(self, search):
            return DataError("too long") if search.filename == "3.png" else super().found(search)

    models = speakers(writer=lambda text: "I do not know.")
    rows, ledger = run(pictures, wordings, models, boxes=Unable())
    assert Counter(row["filename"] for row in rows) == {
        f"{i}.png": len(TASKS) - 1 for i in range(COUNT) if i != 3
    }
    assert ledger.counts[UNFINDABLE] == ledger.counts[NOTHING_LEFT] == 1
    assert f"{UNFINDABLE} (first: 3.png: too long)" in ledger.report()
    assert (
        ledger.counts["conversation without a grounded question and answer, left out"] == COUNT - 1
    )


def test_without_dialogue_nobody_writes_one(pictures, wordings) -> None:
    settings = replace(SETTINGS, dialogue=0)
    models = speakers()
    del models[WRITER]
    rows, _ = run(pictures, wordings, models, settings=settings)
    assert {row["task"] for row in rows} == set(TASKS) - {"converse"}
    with pytest.raises(ConfigError, match="expressions of 4 to 3 words"):
        RexverseSettings(least_words=4, most_words=3)


def test_a_broken_picture_is_named_and_may_be_permitted(pictures, wordings) -> None:
    (pictures.folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^2\.png: the picture .*2\.png cannot be read"):
        run(pictures, wordings)
    rows, ledger = run(pictures, wordings, bad=1)
    assert len(rows) == (COUNT - 1) * len(TASKS)
    assert ledger.counts[BROKEN] == 1


def test_shards_make_up_the_whole(pictures, wordings) -> None:
    whole, _ = run(pictures, wordings)
    parts = [run(pictures, wordings, by=Run(3, Shard(i, 2)))[0] for i in range(2)]
    assert sorted(json.dumps(row) for part in parts for row in part) == sorted(
        map(json.dumps, whole)
    )


def test_a_killed_run_repeats_only_what_was_in_flight(pictures, wordings, tmp_path) -> None:
    whole, counted = run(pictures, wordings)
    log = tmp_path / "calls"

    def counting(text, image):
        with log.open("a") as file:
            file.write(f"{image.getpixel((2, 2))}\n")
        if len(log.read_text().splitlines()) == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return describe(text, image)

    def work():
        run(pictures, wordings, speakers(describer=counting), by=Run(in_flight=2))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    before = len(log.read_text().splitlines())
    models = speakers()
    rows, ledger = run(pictures, wordings, models, by=Run(in_flight=2))
    assert (rows, ledger.counts) == (whole, counted.counts)
    again = len(models[DESCRIBER].asked) + before - 3 * COUNT
    assert 0 < again <= 2 * 3  # two pictures of three regions

    with pytest.raises(DataError):
        run(pictures, wordings, speakers(checker=lambda text: _fail()))
    with pytest.raises(ConfigError, match=r"begun with most words 10 \(now 9\)"):
        run(pictures, wordings, settings=replace(SETTINGS, most_words=9))


def _fail():
    raise DataError("the server is gone")
