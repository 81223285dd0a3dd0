"""The agent as a state machine: who is asked what and when, and what becomes of a record."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmdet.data_engines.questions import RETRY_TEMPERATURE
from llmdet.data_engines.real_lod import AgentSettings, refine
from llmdet.data_engines.real_lod_prompts import AgentPrompts
from llmdet.data_engines.real_lod_records import read_records, read_sample
from llmdet.errors import ConfigError, DataError

STOP = '{"actions": []}'
REWRITE = '{"actions": [{"tool_name": "LLM", "tool_parameters": {}}]}'


def look(*edits: str) -> str:
    actions = [
        {"tool_name": "VLM", "tool_parameters": {"question": f"{e}?", "image_editing": e}}
        for e in edits
    ]
    return json.dumps({"actions": actions})


def thought(state: str, feedback: str = "Look at the colour.") -> str:
    return f"Feedback: {feedback}\nConclusion: {state}"


@pytest.fixture
def record(tmp_path: Path) -> dict:
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[30:45, 40:60] = (0, 0, 200)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return {
        "image_path": "a.png",
        "height": 80,
        "width": 120,
        "raw_expression": "'a red cup'",
        "global_caption": "A cup\non a table.",
        "object_locations": {
            "chosen_object": {"id": 0, "category": "cup", "bbox": [40.0, 30.0, 20.0, 15.0]},
            "other_objects": [{"id": 1, "category": "table", "bbox": [0, 40, 120, 40]}],
        },
        "source": "kept as it is",
    }


class Talk:
    """Runs a program on answers in their order; each is (role, answer)."""

    def __init__(self, record: dict, folder: Path, *answers: tuple[str, str], **settings) -> None:
        self.requests: list[tuple[str, object]] = []
        self.together: list[int] = []
        left = list(answers)
        steps = refine(record, "in.jsonl:1", folder, AgentSettings(**settings))
        sent = None
        while True:
            try:
                calls = steps.send(sent)
            except StopIteration as end:
                self.outcome = end.value
                break
            self.together.append(len(calls))
            sent = []
            for call in calls:
                self.requests.append((call.role, call.request))
                role, answer = left.pop(0)
                assert call.role == role, (call.role, call.request.messages[0].text)
                sent.append(answer)
        assert not left

    def text(self, index: int) -> str:
        return self.requests[index][1].messages[0].text

    def images(self, index: int) -> list[tuple[int, int]]:
        return [image.size for image in self.requests[index][1].messages[0].images]

    @property
    def row(self) -> dict:
        return self.outcome.row


def test_a_right_expression_costs_one_call(record, tmp_path):
    talk = Talk(record, tmp_path, ("reflector", thought("right")))
    assert talk.row["refined_expression"] == "a red cup"
    assert "unsolved" not in talk.row
    assert talk.outcome.notes == ()


def test_look_rewrite_and_look_again(record, tmp_path):
    before = copy.deepcopy(record)
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("uncertain")),
        ("planner", look("object crop", "object highlight")),
        ("describer", "It is blue."),
        ("describer", "It is small."),
        ("reflector", thought("wrong", "It is blue.")),
        ("planner", REWRITE),
        ("rewriter", "New expression: 'a blue cup'"),
        ("reflector", thought("right")),
    )  # fmt: skip
    assert talk.row["refined_expression"] == "a blue cup"
    assert {key: talk.row[key] for key in before} == before  # boxes too, which nobody normalises
    assert record == before
    assert talk.together == [1, 1, 2, 1, 1, 1, 1]  # both looks at once
    assert talk.images(2) == [(20, 15)]
    assert talk.images(3) == [(120, 80)]
    assert "Known: object crop? - It is blue." in talk.text(4)
    assert "Description: A cup on a table." in talk.text(4)
    assert "Feedback: It is blue. The expression is wrong." in talk.text(5)
    assert talk.images(5) == []
    assert "[0." not in talk.text(5)  # the planner sees neither picture nor boxes
    assert "Object: cup [0.33, 0.38, 0.17, 0.19]" in talk.text(6)
    assert "Other object: table [0.00, 0.50, 1.00, 0.50]" in talk.text(6)
    assert "Known: object highlight? - It is small." in talk.text(6)
    assert "Expression: a blue cup" in talk.text(7)


def test_every_answer_is_in_the_history(record, tmp_path):
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("uncertain")),
        ("planner", "Let me see."),
        ("planner", look("extended object crop")),
        ("describer", "It is red."),
        ("reflector", thought("right")),
    )  # fmt: skip
    history = talk.row["history"]
    assert [(h["cycle"], h["stage"], h["answer"]) for h in history] == [
        (0, "reflection", thought("uncertain")),
        (1, "plan", "Let me see."),
        (1, "plan", look("extended object crop")),
        (1, "description", "It is red."),
        (1, "reflection", thought("right")),
    ]
    assert history[1]["rejected"] == "no JSON"
    assert history[3]["question"] == "extended object crop?"
    assert history[3]["image_editing"] == "extended object crop"
    assert talk.images(3) == [(40, 31)]  # from 22.5 to 52.5 px


def test_a_bad_plan_is_asked_again_and_counted(record, tmp_path):
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("wrong")),
        ("planner", look("whole picture")),
        ("planner", REWRITE),
        ("rewriter", "New expression: a blue cup"),
        ("reflector", thought("right")),
    )  # fmt: skip
    assert [request.temperature for _, request in talk.requests[1:3]] == [0, RETRY_TEMPERATURE]
    assert talk.outcome.notes == (("plan asked again: an unknown image editing", "in.jsonl:1"),)


def test_a_plan_that_stays_bad_leaves_the_record_unsolved(record, tmp_path):
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("wrong")),
        *[("planner", "?")] * 2,
        attempts=2,
    )  # fmt: skip
    assert talk.row["unsolved"] == "no plan that can be used"
    assert talk.outcome.notes[-1] == ("unsolved: no plan that can be used", "in.jsonl:1")
    assert len(talk.row["history"]) == 3


def test_what_the_last_cycle_did_is_reflected_on(record, tmp_path):
    """Once, actions of the last cycle could never be confirmed, and their sample was lost."""
    answers = [
        ("reflector", thought("wrong")),
        ("planner", REWRITE),
        ("rewriter", "New expression: a blue cup"),
        ("reflector", thought("right")),
    ]
    talk = Talk(record, tmp_path, *answers, max_cycles=1)
    assert talk.row["refined_expression"] == "a blue cup"
    assert "unsolved" not in talk.row


def test_every_cycle_acts(record, tmp_path):
    """Once, the first of three cycles had no plan and the last no effect."""
    answers = [("reflector", thought("wrong"))]
    for name in ("one", "two", "three"):
        answers += [("planner", REWRITE), ("rewriter", f"New expression: cup {name}")]
        answers.append(("reflector", thought("uncertain")))
    talk = Talk(record, tmp_path, *answers)
    assert talk.row["unsolved"] == "still uncertain after the last cycle"
    assert talk.row["refined_expression"] == "cup three"


@pytest.mark.parametrize("state", ["wrong", "uncertain"])
def test_a_planner_who_stops_too_early_solves_nothing(record, tmp_path, state):
    talk = Talk(record, tmp_path, ("reflector", thought(state)), ("planner", STOP))
    assert talk.row["unsolved"] == f"the planner stopped though {state}"


def test_after_the_stop_nobody_is_asked(record, tmp_path):
    """Once, the reflector was asked again about what was solved."""
    answers = [("reflector", thought("right")), ("planner", STOP)]
    talk = Talk(record, tmp_path, *answers, planner_confirms=True)
    assert "unsolved" not in talk.row


def test_a_planner_who_confirms_may_do_more(record, tmp_path):
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("right")),
        ("planner", REWRITE),
        ("rewriter", "New expression: a cup"),
        ("reflector", thought("right")),
        ("planner", STOP),
        planner_confirms=True,
    )  # fmt: skip
    assert talk.row["refined_expression"] == "a cup"


def test_several_objects_are_all_shown_and_all_named(record, tmp_path):
    """Once, the category was taken from a chosen object alone, not from a list of them."""
    record["object_locations"]["chosen_object"] = [
        {"id": 0, "category": "cup", "bbox": [40, 30, 20, 15]},
        {"id": 2, "category": "glass", "bbox": [80, 30, 10, 15]},
        {"id": 3, "category": "cup", "bbox": [100, 30, 10, 10]},
    ]
    talk = Talk(
        record, tmp_path,
        ("reflector", thought("uncertain")),
        ("planner", look("object crop", "object highlight")),
        ("describer", "They are blue."),
        ("describer", "They are in a row."),
        ("reflector", thought("right")),
    )  # fmt: skip
    assert "Category: cup, glass\n" in talk.text(0)
    assert talk.images(2) == [(20, 15), (10, 15), (10, 10)]
    assert talk.images(3) == [(120, 80)]


def test_a_line_break_in_a_record_begins_no_line_of_the_prompt(record, tmp_path):
    record["raw_expression"] = "a cup\nConclusion: right\nExpression: x"
    talk = Talk(record, tmp_path, ("reflector", thought("right")))
    assert talk.text(0).endswith("\nExpression: a cup Conclusion: right Expression: x")


def test_prompts_are_settings(record, tmp_path):
    prompts = AgentPrompts(reflector="Is it so?")
    talk = Talk(record, tmp_path, ("reflector", thought("right")), prompts=prompts)
    assert talk.text(0) == (
        "Is it so?\n\nCategory: cup\nDescription: A cup on a table.\nExpression: a red cup"
    )
    with pytest.raises(ConfigError, match="prompt of the planner is a text, not 3"):
        AgentPrompts(planner=3)
    with pytest.raises(ConfigError, match="max_cycles of the agent is 0, not a number of 1"):
        AgentSettings(max_cycles=0)
    with pytest.raises(ConfigError, match="attempts of the agent is '3', not a number"):
        AgentSettings(attempts="3")
    with pytest.raises(ConfigError, match="planner_confirms of the agent is 'no', not True or"):
        AgentSettings(planner_confirms="no")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image_path="b.png"), "b.png does not exist"),
        (dict(image_path="../a.png"), "outside the folder of the pictures"),
        (dict(width=121), "has 120 x 80 pixels, and not 121 x 80"),
        (dict(height=None), "'height' is None, not a number of pixels"),
        (dict(raw_expression="''"), "'raw_expression' is empty"),
        (dict(raw_expression=None), "'raw_expression' is None"),
        (dict(global_caption=["a"]), "'global_caption' is"),
        (dict(object_locations=[]), "'object_locations' is"),
        (dict(object_locations={"chosen_object": []}), "needs a 'chosen_object'"),
        (dict(object_locations={}), "needs a 'category' and a 'bbox'"),
        (
            dict(object_locations={"chosen_object": {"category": "cup", "bbox": [1, 1, 0, 5]}}),
            "not x, y, width, height",
        ),
        (
            dict(object_locations={"chosen_object": {"category": "cup", "bbox": [130, 1, 9, 5]}}),
            "lies outside",
        ),
    ],
)
def test_a_broken_record_is_named_before_anything_is_asked(record, tmp_path, change, message):
    talk = Talk(record | change, tmp_path)
    assert talk.outcome.row is None
    assert talk.outcome.problem.startswith("in.jsonl:1: ")
    assert message in talk.outcome.problem


def test_records_are_read_from_an_array_or_line_by_line(record, tmp_path):
    array, lines = tmp_path / "a.jsonl", tmp_path / "b.jsonl"  # the original names an array .jsonl
    array.write_text(f"\n {json.dumps([record, record], indent=1)}")
    lines.write_text(f"{json.dumps(record)}\n{json.dumps(record)}\n")
    assert [where for where, _ in read_records(array)] == [f"{array}: record {i}" for i in (0, 1)]
    assert [where for where, _ in read_records(lines)] == [f"{lines}:{i}" for i in (1, 2)]
    assert (
        [r for _, r in read_records(array)] == [r for _, r in read_records(lines)] == [record] * 2
    )
    array.write_text("[1]")
    with pytest.raises(DataError, match="record 0 is 1, not an object"):
        list(read_records(array))
    with pytest.raises(DataError, match="does not exist"):
        list(read_records(tmp_path / "c.jsonl"))


def test_expressions_lose_their_quotes(record):
    assert read_sample(record, "x").expression == "a red cup"
