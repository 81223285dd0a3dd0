"""What the web demo knows of a visitor, without a web page."""

import json

import numpy as np
import pytest

from llmdet.apis.web.examples import toy_examples
from llmdet.apis.web.visit import LOWEST_SCORE, OWN_BOX, TASKS, Visit, class_names
from llmdet.errors import ConfigError, DataError

WORDS = "red circle, dog"


@pytest.fixture
def visit(confident, photos):
    """A picture in which something was found; scores of the tiny model are all alike."""
    visit = Visit.of(confident, photos / "coffee.png")
    visit.find("Class names", WORDS)
    return visit


def middle(visit):
    return float(np.median(visit.found.scores))


@pytest.mark.parametrize(
    "words",
    [
        "red circle, dog",
        "red circle\ndog\n",
        "red circle . dog .",
        "red circle; dog.",
        " red circle . dog",
    ],
)
def test_class_names_are_read_from_lines_commas_and_dots(words):
    assert class_names(words) == ["red circle", "dog"]


def test_dots_inside_of_names_are_kept():
    assert class_names("5.5 inch phone, St. Bernard") == ["5.5 inch phone", "St. Bernard"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_finds_something(confident, photos, task):
    visit = Visit.of(confident, photos / "coffee.png")
    visit.find(task, "A red circle is left of a dog.")
    assert len(visit.found)
    assert visit.found.scores.min() >= LOWEST_SCORE


def test_the_threshold_is_applied_to_what_was_found_before(visit, monkeypatch):
    monkeypatch.setattr(type(visit.session), "predict", None)  # the model must not run
    every, some = visit.shown(LOWEST_SCORE), visit.shown(middle(visit))
    assert 0 < len(some) < len(every)
    assert sum(visit.names(middle(visit)).values()) == len(some)
    name = next(iter(visit.names(LOWEST_SCORE)))
    assert {visit.found.names[i] for i in visit.shown(LOWEST_SCORE, [name])} == {name}
    assert "best is" in visit.summary(visit.shown(1.0), 1.0)


def test_two_clicks_draw_a_box_that_is_described(visit):
    shown = visit.shown(1.0)
    visit.draw(shown)
    assert visit.scale > 1
    assert not visit.click(90 * visit.scale, 30 * visit.scale)
    assert visit.summary(shown, 1.0) == "Now click the opposite corner."
    assert visit.click(20 * visit.scale, 100 * visit.scale)
    assert visit.own_boxes[0] == pytest.approx((20, 30, 90, 100))
    (row,) = visit.rows(shown)
    assert row[:2] == [OWN_BOX, None]
    saved = json.loads(json.dumps(visit.to_dict(shown, 1.0)))
    assert saved["own_boxes"][0]["bbox"] == pytest.approx([20, 30, 90, 100])
    assert saved["own_boxes"][0]["caption"] == row[-1] == visit.own_captions[0]
    visit.forget_own_boxes()
    assert visit.rows(shown) == []


def test_clicks_beside_the_picture_and_on_one_point_are_refused(visit):
    visit.draw(visit.shown(1.0))
    with pytest.raises(DataError, match="below the picture"):
        visit.click(10, 201 * visit.scale)
    visit.click(50, 50)
    with pytest.raises(DataError, match="opposite corners"):
        visit.click(51, 51)
    assert visit.corner is None


def test_captions_stand_in_the_table_and_the_json(visit):
    shown = visit.shown(middle(visit))[:3]
    visit.describe(shown)
    rows = visit.rows(shown)
    assert [row[-1] for row in rows] == [visit.captions[i] for i in shown.tolist()]
    saved = visit.to_dict(shown, 0.5)
    assert saved["captions"] == [row[-1] for row in rows]
    assert saved.get("description", "") == visit.description
    assert len(saved["bboxes"]) == len(saved["scores"]) == 3


def test_no_path_of_the_server_is_handed_out(visit, photos):
    saved = visit.to_dict(visit.shown(LOWEST_SCORE), LOWEST_SCORE)
    assert saved["image"] == "coffee.png"
    assert str(photos) not in json.dumps(saved)


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("Class names", "  ", "nothing to look for"),
        ("Sentence", "dog " * 2000, "shorten it"),
        ("Riddle", "dog", "no task 'Riddle'"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(visit, task, words, message):
    with pytest.raises((ConfigError, DataError), match=message):
        visit.find(task, words)
    assert visit.question == {"classes": ["red circle", "dog"]}


def test_there_is_an_example_of_every_task(tmp_path):
    examples = toy_examples(tmp_path)
    assert {example.task for example in examples} == set(TASKS)
    assert all(example.image.is_file() and example.words for example in examples)
