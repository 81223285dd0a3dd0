"""Answers of the agent's models: read with patience, and taken at no more than they say."""

import json

import pytest

from llmdet.data_engines.image_edits import ImageEdit
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.data_engines.real_lod_answers import (
    MAX_ACTIONS,
    Action,
    State,
    Tool,
    plain_expression,
    read_description,
    read_expression,
    read_plan,
    read_reflection,
)

LOOK = Action(Tool.DESCRIBE, "What colour?", ImageEdit.CROP)


def plan_of(*actions: object) -> str:
    return json.dumps({"reasoning": "because", "actions": list(actions)})


def look(edit: str, question: str = "What colour?", tool: str = "VLM") -> dict:
    parameters = {"question": question, "image_editing": edit}
    return {"tool_name": tool, "tool_parameters": parameters}


TWO_STEPS = plan_of(look("object crop"), {"tool_name": "LLM"})


@pytest.mark.parametrize("edit", ImageEdit)
def test_every_edit_is_read_as_itself(edit):
    """A search for "object crop" finds it in "extended object crop" as well."""
    assert read_plan(plan_of(look(edit.value))).actions[0].edit is edit


@pytest.mark.parametrize(
    "name", ["extened object crop", "Extended_Object-Crop ", "EXTENDED  OBJECT CROP"]
)
def test_an_extended_crop_is_known_by_other_spellings(name):
    assert read_plan(plan_of(look(name))).actions[0].edit is ImageEdit.EXTENDED_CROP


@pytest.mark.parametrize(
    "answer",
    [
        plan_of(look("object crop"), {"tool_name": "LLM", "tool_parameters": {}}),
        f"<think>{{maybe}}</think>Here is the plan:\n```json\n{TWO_STEPS}\n```",
        f"{TWO_STEPS[:-1]} This {{should}} do.",
        # no quotes around keys, single quotes, a comma too many
        "{reasoning: 'because', 'actions': [{'tool_name': 'VLM', 'tool_parameters': {'question': "
        "'What colour?', 'image_editing': 'object crop',}}, {'tool_name': 'LLM'},]}",
        # cut short
        '{"reasoning": "because", "actions": [{"tool_name": "VLM", "tool_parameters": {"question": '
        '"What colour?", "image_editing": "object crop"}}, {"tool_name": "LLM"',
        '{"Reasoning": "because", "Actions": [{"Tool_Name": "vlm", "Tool_Parameters": {"Question": '
        '"What colour?", "Image_Editing": "Object Crop"}}, {"tool name": "llm"}]}',
    ],
)
def test_plans_are_read_with_patience(answer):
    plan = read_plan(answer)
    assert plan.actions == (LOOK, Action(Tool.REWRITE))
    assert plan.reasoning == "because"


@pytest.mark.parametrize("actions", [[], [{"tool_name": "none", "tool_parameters": {}}]])
def test_no_action_is_a_plan_too(actions):
    assert read_plan(plan_of(*actions)).actions == ()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("The expression is right.", "no JSON"),
        ("", "no JSON"),
        ('{"reasoning": "because"}', "no list of actions"),
        ('{"actions": "LLM"}', "no list of actions"),
        (plan_of("LLM"), "an action that is no object"),
        (plan_of({"tool_parameters": {}}), "an unknown tool"),
        (plan_of(look("object crop", tool="detector")), "an unknown tool"),
        (plan_of({"tool_name": "VLM"}), "an action without parameters"),
        (plan_of(look("object crop", " ")), "an action without a question"),
        (plan_of(look("crop")), "an unknown image editing"),
        (plan_of(look("extended highlight")), "an unknown image editing"),
        (plan_of(*[look("object crop")] * (MAX_ACTIONS + 1)), "too many actions"),
    ],
)
def test_what_is_no_plan_is_rejected_with_its_cause(answer, cause):
    with pytest.raises(RejectedAnswerError, match=f"^{cause}"):
        read_plan(answer)


@pytest.mark.parametrize(
    ("conclusion", "state"),
    [
        ("right", State.RIGHT),
        ("The expression is correct.", State.RIGHT),
        ("**Incorrect**", State.WRONG),
        ("The expression is not entirely correct.", State.WRONG),
        ("the expression 'dog on the right' is wrong", State.WRONG),
        ("The expression seems uncertain, as its right side is hidden.", State.UNCERTAIN),
    ],
)
def test_the_state_is_that_of_the_conclusion(conclusion, state):
    answer = f"Feedback: It is on the right, not wrong at all.\nConclusion: {conclusion}"
    reflection = read_reflection(answer)
    assert reflection.state is state
    assert reflection.feedback == "It is on the right, not wrong at all."


@pytest.mark.parametrize(
    "answer", ["It is right.", "Conclusion: a dog on the right", "Conclusion:", ""]
)
def test_a_reflection_without_conclusion_is_rejected(answer):
    with pytest.raises(RejectedAnswerError, match="conclusion"):
        read_reflection(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Reasoning: it is blue.\nNew Expression: 'the dog's blue cup'",
        "New Expressions: the dog's blue cup.",  # one letter more once lost every new expression
        'new expression: "the dog\'s blue cup".\n',
        "The new expression is better.\n**New Expression:** the dog's blue cup",
        "New expression: a red cup\nNo: it is blue.\nNew expression: “the dog's blue cup”",
    ],
)
def test_a_new_expression_is_found_however_it_is_announced(answer):
    assert read_expression(answer) == "the dog's blue cup"


@pytest.mark.parametrize(
    "answer", ["a red cup", "New expression: ''", f"New expression: {'red ' * 61}"]
)
def test_without_new_expression_the_old_one_does_not_stay_in_silence(answer):
    with pytest.raises(RejectedAnswerError, match="new expression"):
        read_expression(answer)


def test_descriptions_are_one_line_and_not_empty():
    assert read_description("It is\n red. ") == "It is red."
    with pytest.raises(RejectedAnswerError, match="no description"):
        read_description(" ... ")


@pytest.mark.parametrize("text", ["'a red cup'", ' "a red cup". ', "a red cup.", "“'a red cup'”"])
def test_quotes_and_final_stop_do_not_belong_to_an_expression(text):
    assert plain_expression(text) == "a red cup"
