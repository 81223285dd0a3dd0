"""What is asked about lists before pictures are searched."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llmdet.datasets.toy.scene import sample_scene
from llmdet.datasets.toy.vocabulary import SEEN
from llmdet.prompts.objects import ABSENT
from llmdet.testing.search_lesson import LATE, Searches

WEIGHTS = np.full(len(SEEN), 1 / len(SEEN))
SCENES = [sample_scene(np.random.default_rng(number), SEEN, WEIGHTS) for number in range(60)]
LESSON = Searches(SCENES, 200, 100)


def drawn(lesson, step, times=20):
    rng = np.random.default_rng(0)
    return [each for _ in range(times) for each in lesson(step, rng)]


def first_questions(lists):
    return [row["conversations"][0]["value"] for _, row in lists]


def is_of_a_place(question):
    return any(f" {side} the " in question for side in ("left of", "right of", "above", "below"))


def test_each_task_has_its_share_also_where_many_lists_raise_none_of_its_questions():
    questions = first_questions(drawn(LESSON, 200))
    kinds = Counter(
        "places" if is_of_a_place(q) else "pairs" if ";" in q else q.partition(" ")[0]
        for q in questions
    )
    shares = {name: count / len(questions) for name, count in kinds.items()}
    assert shares["places"] == pytest.approx(LATE["places"], abs=0.06)
    assert shares["pairs"] == pytest.approx(LATE["pairs"], abs=0.06)
    assert shares["Relate"] == pytest.approx(LATE["sides"], abs=0.06)
    assert shares["Name"] == pytest.approx(LATE["names"], abs=0.06)


def test_lists_grow_and_those_of_places_begin_short_once_more():
    lengths = {
        step: [len(objects.items) for objects, _ in drawn(LESSON, step)] for step in (1, 80, 100)
    }
    assert max(lengths[1]) == 2
    assert max(lengths[80]) == max(lengths[100]) == 6
    behind = drawn(LESSON, 101)
    of_places = [
        len(objects.items)
        for (objects, _), question in zip(behind, first_questions(behind), strict=True)
        if is_of_a_place(question)
    ]
    assert set(of_places) == {2}
    assert max(len(objects.items) for objects, _ in behind) == 6


def test_places_are_asked_for_behind_the_first_steps_alone():
    assert not any(map(is_of_a_place, first_questions(drawn(LESSON, 100))))


@pytest.mark.parametrize("step", [1, 200])
@pytest.mark.parametrize("rejection", [True, False])
def test_nothing_absent_is_asked_for_without_rejection(step, rejection):
    lists = drawn(Searches(SCENES, 200, 100, rejection), step)
    said = "".join(turn["value"] for _, row in lists for turn in row["conversations"])
    assert (ABSENT in said) == rejection


def test_scenes_that_raise_no_question_of_a_task_are_asked_for_names():
    alone = next(scene for scene in SCENES if len(scene.items) == 1)
    lists = drawn(Searches([alone], 200, 100), 200, times=1)
    assert any(question.startswith("Name ") for question in first_questions(lists))
