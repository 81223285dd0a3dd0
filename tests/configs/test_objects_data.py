"""What docs/chatrex.md says to convert is what the stages' data sets read, and it is true."""

import json
import random
import re
import shlex

import pytest
from mmengine.config import Config

from llmdet.cli import convert_data
from llmdet.prompts.objects import ABSENT, ObjectGrammar
from llmdet.registry import DATASETS, TRANSFORMS

NAMES = ["dog", "person", "cat", "bird"]
DOG, PERSON, CAT, BIRD = range(len(NAMES))


def instances(path, *objects):
    """A COCO file with a picture of (class, is a crowd), one beside the other."""
    annotations = [
        {"id": n, "image_id": 1, "category_id": kind, "bbox": [20 * n, 0, 10, 10], "iscrowd": crowd}
        for n, (kind, crowd) in enumerate(objects)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 20}],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
    }
    path.write_text(json.dumps(content))


@pytest.fixture
def conversations(root, tmp_path):
    """File below data/objects, input -> candidates, question and answer, as drawn by training."""

    def convert_and_draw(name, given):
        table = (root / "docs/chatrex.md").read_text().partition("| below `data/objects/` |")[2]
        row = next(line for line in table.splitlines() if f"`{name}" in line.split("|")[1])
        options = shlex.split(re.findall(r"`([^`]+)`", row.split("|", 2)[2])[0])[2:]
        convert_data.main([str(given), str(tmp_path / f"{name}.jsonl"), *options])
        config = Config.fromfile(root / "configs/chatrex/stage3.py")
        (settings,) = (s for s in config.stage_three if s.ann_file == f"{name}.jsonl")
        made_of_rows = ("AskForObjects", "MixCandidates")
        steps = [TRANSFORMS.build(step) for step in settings.pipeline if step.type in made_of_rows]
        data = DATASETS.build({**settings, "data_root": str(tmp_path), "pipeline": steps})
        random.seed(0)
        drawn = []
        for sample in (data[0] for _ in range(60)):
            (conversation,) = sample["conversations"]
            texts = [turn.text for turn in conversation.turns]
            boxes = sample["regions"].boxes.tolist()
            drawn += [(boxes, *turns) for turns in zip(texts[::2], texts[1::2], strict=True)]
        return drawn

    return convert_and_draw


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_an_expression_is_found_among_the_other_objects_of_its_picture(
    name, tmp_path, conversations
):
    instances(tmp_path / "instances.json", (PERSON, 0), (PERSON, 0), (DOG, 0))
    refs = tmp_path / "refs.json"
    sentences = [{"sent": "man on the left"}]
    ref = {"ann_id": 0, "image_id": 1, "split": "train", "sentences": sentences}
    refs.write_text(json.dumps([ref]))
    for boxes, question, answer in conversations(name, refs):
        assert sorted(boxes) == [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
        assert "man on the left" in question
        (found,) = ObjectGrammar().parse(answer, len(boxes)).phrases
        assert found.phrase == "man on the left"
        assert [boxes[index] for index in found.indices] == [[0, 0, 10, 10]]


@pytest.mark.parametrize("name", ["coco", "objects365", "crowdhuman"])
def test_a_class_with_a_crowd_is_neither_counted_nor_called_absent(name, tmp_path, conversations):
    given = tmp_path / "instances.json"
    instances(given, (DOG, 0), (DOG, 1), (PERSON, 1), (CAT, 0), (BIRD, 0))
    for boxes, question, answer in conversations(name, given):
        assert len(boxes) == 3  # the dog is a candidate, though nothing is asked of it
        assert "dog" not in question
        assert "person" not in question
        assert answer != ABSENT
        named = {phrase.phrase for phrase in ObjectGrammar().parse(answer, len(boxes)).phrases}
        assert named == {each for each in ("cat", "bird") if each in question}
