"""Conversations about candidates, made of boxes and mixed with proposals."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.rows import read_row
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import AskForObjects, MixCandidates
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import Conversation, Turn, ask
from llmdet.prompts.objects import ABSENT, ObjectGrammar

ROOT = Path(__file__).parents[3]
WORDINGS = Config.fromfile(ROOT / "configs/_base_/prompts/objects.py").object_wordings
GRAMMAR = ObjectGrammar()
BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
LABELS = {"0": "dog", "1": "cat", "2": "cow"}


def detection(**fields):
    instances = [
        {"bbox": box.tolist(), "bbox_label": label, "ignore_flag": 0}
        for box, label in zip(BOXES, (0, 1, 0), strict=True)
    ]
    return {"instances": instances, "text": LABELS, "conversations": (), **fields}


def asked(results):
    (conversation,) = results["conversations"]
    question, answer = (turn.text for turn in conversation.turns)
    return question, answer, GRAMMAR.parse(answer, len(results["regions"]))


def test_every_task_has_about_a_dozen_different_wordings():
    assert len(WORDINGS) == 9
    texts = [text for task in WORDINGS.values() for text in task.wordings]
    assert len(set(texts)) == len(texts)
    for name, task in WORDINGS.items():
        assert len(task.wordings) == 12, name
        about = [name == "converse" or "[OBJ]" in text for text in task.wordings]
        assert all(about) or name.endswith("caption"), name


@pytest.mark.parametrize("task", ["detect", "count", "name"])
def test_a_question_and_its_answer_follow_from_the_boxes(task):
    random.seed(0)
    ask_for = AskForObjects(WORDINGS, {task: 1.0}, absent=0.0)
    truth = {"dog": (0, 2), "cat": (1,)}
    questions = set()
    for _ in range(40):
        results = ask_for.transform(detection())
        question, answer, read = asked(results)
        questions.add(question)
        assert question.endswith(WORDINGS[task]["form"])
        assert results["regions"].boxes.tolist() == BOXES.tolist()
        assert read.phrases
        for named in read.phrases:
            if task == "name":
                assert set(named.indices) < {*truth[named.phrase]} | {3}
                assert f"<obj{named.indices[0]}>" in question
            else:
                assert named.indices == truth[named.phrase]
                assert named.phrase in question
        if task == "count":
            assert answer.startswith(f"The number is {len(read.phrases[0].indices)}: ")
    assert len(questions) > 10


def test_what_is_not_there_is_refused_as_often_as_said():
    random.seed(1)
    ask_for = AskForObjects(WORDINGS, {"detect": 1.0}, absent=0.3)
    answers = [asked(ask_for.transform(detection())) for _ in range(300)]
    refused = [question for question, answer, _ in answers if answer == ABSENT]
    assert 60 < len(refused) < 120
    assert all("cow" in question for question in refused)


def test_expressions_are_neither_counted_nor_taught_as_categories():
    random.seed(0)
    phrases = {0: {"phrase": "man in red on the left"}, 1: {"phrase": "the cat"}}
    ask_for = AskForObjects(WORDINGS, {"count": 0.5, "name": 0.5})
    for _ in range(40):
        question, answer, read = asked(ask_for.transform(detection(phrases=phrases)))
        assert question.endswith(WORDINGS["detect"]["form"])
        assert "The number is" not in answer
        assert all(named.phrase in question for named in read.phrases)


def test_phrases_are_asked_for_and_samples_without_boxes_left_alone():
    phrases = {0: {"phrase": "a dog"}, 1: {"phrase": ["the cat", "a cat"]}}
    ask_for = AskForObjects(WORDINGS, {"detect": 1.0}, absent=1.0)
    question, _, read = asked(ask_for.transform(detection(phrases=phrases)))
    assert {named.phrase for named in read.phrases} <= {"a dog", "the cat"}
    assert read.phrases[0].phrase in question
    empty = {"instances": [], "text": LABELS, "conversations": ()}
    assert ask_for.transform(dict(empty)) == empty


@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_regions_and_proposals_in_any_order_and_mean_the_same_boxes(seed):
    random.seed(seed)
    proposals = [[1, 0, 10, 10, 0.9], [60, 0, 70, 10, 0.8], [80, 0, 90, 10, 0.7]]
    talk = ask("<image>\nDogs?", GRAMMAR.write({"dog": [0, 2], "cat": [1]}))
    results = {"regions": Regions(BOXES), "conversations": (talk,), "proposals": proposals}
    mixed = MixCandidates(most=4, rule="score").transform(results)
    boxes = mixed["regions"].boxes
    assert len(boxes) == 4
    _, answer, read = asked(mixed)
    found = {named.phrase: boxes[list(named.indices)].tolist() for named in read.phrases}
    assert sorted(found["dog"]) == BOXES[[0, 2]].tolist()
    assert found["cat"] == [BOXES[1].tolist()]
    (other,) = [box for box in boxes.tolist() if box not in BOXES.tolist()]
    assert other == [60, 0, 70, 10]  # the best one that is no region
    numbers = [int(n) for n in re.findall(r"<obj(\d)>", answer.partition("\n")[0])]
    assert numbers == sorted(numbers)
    question = mixed["conversations"][0].turns[0].text
    listed = "".join(f"<obj{n}><region:{n}>" for n in range(4))
    assert question == f"<image>\n{listed}\nDogs?"
    assert mixed["conversations"][0].turns[1].learned


def test_of_too_many_boxes_those_that_are_spoken_of_stay():
    boxes = np.tile(BOXES, (2, 1)) + np.arange(6, dtype=np.float32)[:, None]
    conversations = (Conversation((Turn("user", "<image>\nWhat is <region:5>?"),)),)
    mix = MixCandidates(most=2, shuffle=False)
    results = mix.transform({"regions": Regions(boxes), "conversations": conversations})
    assert results["regions"].boxes.tolist() == boxes[[0, 5]].tolist()
    assert results["conversations"][0].turns[0].text.endswith("\nWhat is <obj1>?")
    everything = (ask("All?", GRAMMAR.write({"dog": range(6)})),)
    results = mix.transform({"regions": Regions(boxes), "conversations": everything})
    assert results["conversations"] == ()
    assert dict(mix.dropped.state().counts) == {
        "conversation about more objects than there are candidates": 1,
        "box that was no candidate, as there were too many": 8,
    }


def test_masks_stay_with_their_regions():
    random.seed(3)
    masks = ([[0, 0, 9, 0, 9, 9]], [[20, 0, 29, 0, 29, 9]], [[40, 0, 49, 0, 49, 9]])
    results = {"regions": Regions(BOXES, masks), "proposals": [[60, 0, 70, 10]]}
    mixed = MixCandidates().transform(results)["regions"]
    for box, mask in zip(mixed.boxes, mixed.masks, strict=True):
        assert (mask is None) == (box[0] == 60)
        assert mask is None or mask[0][0] == box[0]


def test_rows_may_have_proposals(tmp_path):
    row = {
        "filename": "a.png",
        "height": 20,
        "width": 60,
        "detection": {"instances": [{"bbox": BOXES[0].tolist(), "label": 1}]},
        "proposals": [[1, 2, 3, 4, 0.5]],
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    steps = [AskForObjects(WORDINGS, {"detect": 1.0}, absent=0.0), MixCandidates()]
    data = ODVGDataset(
        data_root=str(tmp_path),
        ann_file="rows.jsonl",
        label_map_file="labels.json",
        data_prefix={"img": ""},
        pipeline=[step.transform for step in steps],
    )
    sample = data[0]
    assert sorted(sample["regions"].boxes.tolist()) == [[0, 0, 10, 10], [1, 2, 3, 4]]
    assert asked(sample)[2].phrases[0].phrase == "cat"
    with pytest.raises(DataError, match=r"proposals\[0\]"):
        read_row({**row, "proposals": [[1, 2, 3]]}, "rows")


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="'describe' cannot be asked; use detect, count, name"):
        AskForObjects(WORDINGS, {"describe": 1.0})
    with pytest.raises(ConfigError, match="wordings has no 'detect'"):
        AskForObjects({"name": WORDINGS["name"]}, {"name": 1.0})
    with pytest.raises(DataError, match="<obj3>, but there are 3 regions"):
        MixCandidates().transform(
            {"regions": Regions(BOXES), "conversations": (ask("What is <obj3>?"),)}
        )
