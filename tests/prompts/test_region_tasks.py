"""Task-guided questions: the same form in every wording, and choices that are read as written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.prompts.conversation import Conversation, Turn
from llmdet.prompts.region_tasks import NO_REGION, TASKS, ask_of_regions, choice, read_choice

WORDINGS = [(task, number) for task, kind in TASKS.items() for number in range(len(kind.wordings))]


@pytest.mark.parametrize(("task", "wording"), WORDINGS)
def test_every_wording_speaks_of_each_region_once_and_ends_with_the_form(task, wording):
    marks = ["<region:2>", "<region>"] if task == "choose" else ["<region:2>"]
    question = ask_of_regions(task, marks, wording=wording, vocabulary="LVIS", text="a {red} dog")
    slots = Conversation((Turn("user", question),)).slots
    assert [slot.index for slot in slots] == [2, 3][: len(marks)]
    assert question.endswith(TASKS[task].form.format(vocabulary="LVIS"))
    assert ('"a {red} dog"' in question) == (task == "choose")


def test_there_are_several_wordings_of_each_task_and_none_twice():
    for kind in TASKS.values():
        assert len(set(kind.wordings)) == len(kind.wordings) >= 8


def test_without_a_vocabulary_any_name_will_do():
    assert ask_of_regions("classify").endswith("using a single word or phrase.")
    assert ask_of_regions("classify", vocabulary="COCO-80").endswith(
        "using a single word or phrase from COCO-80 categories."
    )


@given(st.integers(1, 500))
def test_a_choice_is_read_as_it_was_written(number):
    assert read_choice(choice(number)) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (NO_REGION, 0),
        ("no matching region", 0),
        ("It is region 3", 3),
        ("Region[12].", 12),
        ("the dog", None),
        ("", None),
    ],
)
def test_answers_of_models_that_keep_to_the_form_less_strictly_are_read_too(answer, number):
    assert read_choice(answer) == number
