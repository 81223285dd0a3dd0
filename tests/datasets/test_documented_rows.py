"""The rows that docs/data.md shows are read as it says."""

import json
import re
from pathlib import Path

import pytest

from llmdet.datasets.formats.rows import row_sample
from llmdet.datasets.rows import Row, read_row
from llmdet.prompts.mask_tasks import MASK_TASKS, NO_TARGET
from llmdet.prompts.masks import marked_regions
from llmdet.prompts.object_questions import Wordings
from llmdet.prompts.objects import ObjectGrammar
from llmdet.prompts.region_tasks import TASKS, read_choice
from llmdet.utils.config import load_config


def documented(root: Path, title: str) -> list[dict]:
    section = (root / "docs/data.md").read_text().partition(f"\n## {title}\n")[2]
    blocks = re.findall(r"```json\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    return [json.loads(block) for block in blocks]


@pytest.fixture(scope="module")
def rows(root: Path) -> list[Row]:
    parsed = documented(root, "The JSONL format")
    for values in parsed:
        row_sample(values, "docs/data.md")  # what converters and the validator read
    return [read_row(values, "docs/data.md") for values in parsed]


def test_five_kinds_of_rows_are_shown(rows: list[Row]) -> None:
    grounding, detection, expressions, caption, dialogue = rows
    assert [len(phrase.boxes) for phrase in grounding.phrases] == [1, 2]
    assert grounding.caption[slice(*grounding.phrases[1].spans[0])] == "two red balls"
    assert detection.boxes[0].category == "dog"
    assert [pair.relation for pair in expressions.pairs] == ["single", "multi"]
    assert expressions.pairs[1].positives == ("the two red balls",)
    assert (caption.filename, caption.width) == ("000012.jpg", None)
    assert caption.conversation.turns[1].learned
    assert [slot.index for slot in dialogue.conversation.slots] == [0, 0, 1, 2, 0]


def test_the_masks_of_the_documented_regions_lie_in_their_boxes(rows: list[Row]) -> None:
    from pycocotools import mask as coco_mask

    regions = rows[4].regions
    assert regions.boxes[1].tolist() == [300, 310, 340, 350]
    encoded = regions.masks[2]
    x, y, width, height = coco_mask.toBbox(encoded).tolist()
    assert [x, y, x + width, y + height] == regions.boxes[2].tolist()


def test_a_row_of_each_task_is_shown_in_a_wording_that_the_program_writes(root: Path) -> None:
    shown = documented(root, "Conversations about regions")
    assert [values["task"] for values in shown] == [*TASKS, *MASK_TASKS]
    for values in shown[: len(TASKS)]:
        read = read_row(values, "docs/data.md")
        marks = re.compile(r"<region(?::\d+)?>(?:, <region(?::\d+)?>)*")
        kind = TASKS[values["task"]]
        possible = [
            wording.replace("<region>", "MARKS").replace("{marks}", "MARKS")
            for wording in kind.wordings
        ]
        for turn in read.conversation.turns[::2]:
            asked = re.sub('".*"', '"{text}"', marks.sub("MARKS", turn.text))
            form = kind.form.format(vocabulary="COCO-80")
            assert asked.removeprefix("<image>\n").removesuffix(f" {form}") in possible
    chosen = [read_choice(turn["value"]) for turn in shown[3]["conversations"][1::2]]
    assert chosen == [3, 0]


def test_a_row_about_candidates_is_shown_in_wordings_of_the_configs(root: Path) -> None:
    (values,) = documented(root, "Conversations about candidate objects")
    row = read_row(values, "docs/data.md")
    config = load_config(root / "configs/_base_/prompts/objects.py")
    kind = Wordings(**config.object_wordings[values["task"]])
    texts = [turn.text.removeprefix("<image>\n") for turn in row.conversation.turns]
    possible = [kind.ask(name, n) for name in ("dog", "cat") for n in range(len(kind.wordings))]
    assert set(texts[::2]) <= set(possible)
    dog, cat = (ObjectGrammar().parse(text, len(row.regions)) for text in texts[1::2])
    assert dog.phrases[0].indices == (0, 2)
    assert cat.absent


def test_rows_with_masks_are_shown_as_the_program_writes_them(root: Path) -> None:
    shown = documented(root, "Conversations about regions")[len(TASKS) :]
    for values in shown:
        read = read_row(values, "docs/data.md")
        task, turns = MASK_TASKS[values["task"]], read.conversation.turns
        assert marked_regions(turns) == tuple(range(len(read.regions)))
        wordings = [wording.replace("{text}", ".+") for wording in task.wordings]
        for turn in turns[::2]:
            asked = turn.text.removeprefix("<image>\n")
            assert any(re.fullmatch(wording.replace("?", "[?]"), asked) for wording in wordings)
        for turn in turns[1::2]:
            answer = re.sub(r"<mask:\d>", "<mask>", turn.text)
            assert not task.answers or answer in (*task.answers, NO_TARGET)
