"""Conversations about regions: what is asked, of which objects, and what is left out."""

import json
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions import RegionSettings, write_regions
from llmdet.datasets.regions.pictures import MARKED_TEXT, NO_SIZE, NOT_ONE_OBJECT, UNREAD_MASK
from llmdet.datasets.regions.selection import (
    BEYOND_CLASS,
    BEYOND_IMAGE,
    CROWD,
    NO_NAME,
    NOT_ALONE,
)
from llmdet.datasets.regions.tasks import ALONE, SHARED_TEXT
from llmdet.datasets.row_targets import BOX_OUTSIDE
from llmdet.datasets.rows import read_row
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.region_tasks import NO_REGION, TASKS, read_choice

CLASSES = ["dog", "cat", "bow_(weapon)"]
SIZE = (100, 80)


def detections(*pictures, **fields):
    """A source of boxes (place, class or None for a crowd of dogs), one list a picture."""
    samples = []
    for number, objects in enumerate(pictures):
        instances = [
            Instance(square(place), CLASSES[label or 0], label or 0, ignored=label is None)
            for place, label in objects
        ]
        samples.append(Sample(f"{number}.jpg", *SIZE, instances, f"line {number}", **fields))
    return Source(iter(samples), len(samples), [{"name": name} for name in CLASSES])


def square(place):
    """One of 80 boxes that do not overlap."""
    x, y = 10 * (place % 10), 10 * (place // 10)
    return [x, y, x + 8, y + 8]


def expressions(*entries):
    """A source of (picture, place, text) as RefCOCO has them: a sample for each sentence."""
    samples = [
        Sample(f"{picture}.jpg", *SIZE, [Instance(square(place), text)], "there", text)
        for picture, place, text in entries
    ]
    return Source(iter(samples), len(samples))


def write(tmp_path, source, objects=None, **chosen):
    chosen.setdefault("whole_expressions", source.categories is None)
    ledger, out = Ledger(), tmp_path / "rows.jsonl"
    write_regions(source, out, RegionSettings(**chosen), ledger, objects)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        read_row(row, "row")  # every row is one that training reads
    return rows, ledger


def asked(row):
    """Questions with the boxes that they mark, and answers."""
    turns = [turn["value"] for turn in row["conversations"]]
    slots = iter(read_row(row, "row").conversation.slots[1:])  # the first one is the image
    questions = []
    for text in turns[::2]:
        marks = re.findall(r"<region(?::\d+)?>", text)
        questions.append((text, [row["regions"][next(slots).index]["bbox"] for _ in marks]))
    return list(zip(questions, turns[1::2], strict=True))


def test_classes_are_asked_one_region_a_turn_in_the_words_of_the_task(tmp_path):
    source = detections([(0, 0), (5, 1), (9, 2)])
    (row,), ledger = write(tmp_path, source, task="classify", vocabulary="LVIS", folder="lvis/")
    assert (row["filename"], row["width"], row["height"]) == ("lvis/0.jpg", 100, 80)
    assert row["task"] == "classify"
    answers = {tuple(boxes[0]): answer for (_, boxes), answer in asked(row)}
    assert answers == {
        tuple(square(0)): "dog",
        tuple(square(5)): "cat",
        tuple(square(9)): "bow",
    }
    texts = [text for (text, _), _ in asked(row)]
    assert texts[0].startswith("<image>\n")
    assert all(text.endswith("from LVIS categories.") for text in texts)
    assert not ledger.counts


def test_a_class_gives_no_more_objects_than_its_cap_over_all_pictures(tmp_path):
    source = detections(*[[(place, place % 2) for place in range(7)] for _ in range(9)])
    rows, ledger = write(tmp_path, source, task="classify", per_class=5)
    names = Counter(answer for row in rows for _, answer in asked(row))
    assert names == {"dog": 5, "cat": 5}
    assert ledger.counts == {BEYOND_CLASS: 9 * 7 - 10}


def test_a_picture_gives_no_more_objects_than_its_cap_in_rows_of_so_many_turns(tmp_path):
    source = detections([(place, 0) for place in range(40)])
    rows, ledger = write(tmp_path, source, task="classify", per_image=10, turns=4)
    assert [len(asked(row)) for row in rows] == [4, 4, 2]
    assert ledger.counts == {BEYOND_IMAGE: 30}
    assert len({tuple(region["bbox"]) for row in rows for region in row["regions"]}) == 10


@pytest.mark.parametrize("task", ["caption", "refer"])
def test_every_expression_is_learned_and_no_row_asks_twice_of_an_object(tmp_path, task):
    given = [(1, 0, "left dog."), (2, 3, "a cat"), (1, 0, "brown dog"), (1, 7, 'the "big" one')]
    rows, ledger = write(tmp_path, expressions(*given), task=task)
    said = [(row["filename"], *pair) for row in rows for pair in asked(row)]
    assert sorted((name, *boxes, answer) for name, (_, boxes), answer in said) == [
        ("1.jpg", square(0), "brown dog"),
        ("1.jpg", square(0), "left dog"),
        ("1.jpg", square(7), "the 'big' one"),
        ("2.jpg", square(3), "a cat"),
    ]
    assert [len(asked(row)) for row in rows] == [2, 1, 1]
    assert all(text.endswith(TASKS[task].form) for _, (text, _), _ in said)
    assert not ledger.counts


def test_choices_show_hard_regions_first_and_name_the_place_of_the_right_one(tmp_path):
    others = [[(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, None)]]
    source = expressions(*[(0, 0, f"dog {n}") for n in range(30)])
    rows, _ = write(
        tmp_path, source, detections(*others), task="choose", candidates=4, none_share=0.0
    )
    places = Counter()
    for row in rows:
        for (text, boxes), answer in asked(row):
            number = read_choice(answer)
            assert boxes[number - 1] == square(0)
            places[number] += 1
            shown = [boxes.count(square(place)) for place in range(6)]
            assert shown[:3] == [1, 1, 1]  # both other dogs, and one cat; never the crowd
            assert shown[5] == 0
            assert sum(shown) == len(boxes) == 4
            assert re.search(r'"dog \d+"', text)
    assert len(places) == 4


def test_some_choices_leave_the_right_region_out(tmp_path):
    source = expressions(*[(n, place, f"thing {place}") for n in range(80) for place in (0, 5)])
    rows, _ = write(tmp_path, source, task="choose", none_share=0.25)
    pairs = [pair for row in rows for pair in asked(row)]
    refused = [(text, boxes) for (text, boxes), answer in pairs if answer == NO_REGION]
    assert 20 < len(refused) < 60  # of 160, by chance
    for text, boxes in refused:
        assert square(0 if "thing 0" in text else 5) not in boxes


def test_the_number_of_regions_does_not_tell_whether_the_right_one_is_among_them(tmp_path):
    source = expressions(*[(n, place, f"thing {place}") for n in range(9) for place in range(6)])
    rows, _ = write(tmp_path, source, task="choose", none_share=0.5, candidates=4)
    shown = {(answer == NO_REGION, len(boxes)) for row in rows for (_, boxes), answer in asked(row)}
    assert shown == {(True, 4), (False, 4)}


def test_nothing_is_chosen_without_another_region_or_by_words_of_two_objects(tmp_path):
    entries = (0, 0, "dog"), (1, 0, "Dog"), (1, 9, "dog"), (2, 0, "a"), (2, 1, "b")
    rows, ledger = write(tmp_path, expressions(*entries), task="choose")
    assert {row["filename"] for row in rows} == {"2.jpg"}
    assert ledger.counts == {ALONE: 1, SHARED_TEXT: 2}
    rows, ledger = write(tmp_path, expressions(*entries), task="refer")
    assert {row["filename"] for row in rows} == {"0.jpg", "2.jpg"}
    assert ledger.counts == {SHARED_TEXT: 2}
    rows, _ = write(tmp_path, expressions(*entries), task="caption")
    assert {row["filename"] for row in rows} == {"0.jpg", "1.jpg", "2.jpg"}


def test_a_region_in_the_place_of_the_right_one_is_not_shown_beside_it(tmp_path):
    source = expressions((0, 0, "dog"), (0, 9, "cat"))
    near = [1, 0, 8, 8]
    objects = Source(
        iter([Sample("0.jpg", *SIZE, [Instance(near, "dog", 0)], "there")]), 1, [{"name": "dog"}]
    )
    rows, _ = write(tmp_path, source, objects, task="choose", none_share=0.0)
    for (text, boxes), _ in asked(rows[0]):
        assert '"cat"' in text or near not in boxes


def test_class_names_are_chosen_by_where_one_object_alone_has_them(tmp_path):
    source = detections([(0, 0), (1, 0), (2, 1), (3, 2)], [(0, 0), (1, None), (2, 1)])
    rows, ledger = write(tmp_path, source, task="choose", none_share=0.0)
    texts = [text for row in rows for (text, _), _ in asked(row)]
    assert sorted(re.findall(r'"(\w+)"', "".join(texts))) == ["bow", "cat", "cat"]
    assert ledger.counts == {NOT_ALONE: 3, CROWD: 1}


def test_described_objects_take_class_and_mask_of_the_object_in_their_place(tmp_path):
    source = expressions((0, 0, "left dog"), (1, 1, "x"))
    polygon = [[0.0, 0.0, 8.0, 0.0, 8.0, 8.0]]
    instances = [
        Instance([0.1, 0, 8, 8], "dog", 0, extra={"segmentation": polygon}),
        Instance(square(4), "cat", 1, extra={"segmentation": {"size": [1, 1], "counts": "a"}}),
    ]
    objects = Source(iter([Sample("0.jpg", *SIZE, instances, "there")]), 1, [{"name": "dog"}])
    rows, ledger = write(tmp_path, source, objects, task="classify", masks=True)
    said = {tuple(boxes[0]): answer for (_, boxes), answer in asked(rows[0])}
    assert said == {tuple(square(0)): "dog", tuple(square(4)): "cat"}
    masks = {tuple(region["bbox"]): region.get("segmentation") for region in rows[0]["regions"]}
    assert masks == {tuple(square(0)): polygon, tuple(square(4)): None}
    assert ledger.counts == {NO_NAME: 1, UNREAD_MASK: 1}


def test_what_cannot_be_asked_about_is_counted_by_cause(tmp_path):
    samples = [
        Sample("a.jpg", None, None, [], "line 1", "no size"),
        Sample("c.jpg", 20.5, 30, [], "line 1", "no size either"),
        Sample("b.jpg", *SIZE, [Instance(square(0), "x"), Instance(square(1), "x")], "line 2", "x"),
        Sample("b.jpg", *SIZE, [Instance(square(0), "x")], "line 3", "the <region> mark"),
        Sample("b.jpg", *SIZE, [Instance([500, 0, 600, 9], "x")], "line 4", "outside"),
        Sample("b.jpg", *SIZE, [Instance([-5, 70, 9, 99], "x")], "line 5", "kept"),
    ]
    (row,), ledger = write(tmp_path, Source(iter(samples), None), task="refer")
    assert row["regions"] == [{"bbox": [0, 70, 9, 80]}]
    assert ledger.counts == {NO_SIZE: 2, NOT_ONE_OBJECT: 1, MARKED_TEXT: 1, BOX_OUTSIDE: 1}


def test_conversations_that_are_there_are_kept_as_they_are(tmp_path):
    talk = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "That."}]
    samples = [
        Sample("a.jpg", None, None, [], "line 1", fields={"conversations": talk}),
        Sample("b.jpg", 9, 9, [], "line 2"),
    ]
    rows, ledger = write(tmp_path, Source(iter(samples), None), task=None, folder="llava/")
    assert rows == [{"filename": "llava/a.jpg", "conversations": talk}]
    assert ledger.counts == {"picture without a conversation": 1}


@pytest.mark.parametrize("task", ["classify", "choose"])
def test_wordings_differ_but_where_a_test_asks_for_the_first_one(tmp_path, task):
    def openings(**chosen):
        source = detections(*[[(0, 0), (1, 1)] for _ in range(30)])
        rows, _ = write(tmp_path, source, task=task, none_share=0.0, **chosen)
        return {turn["value"][:17] for row in rows for turn in row["conversations"][2::2]}

    assert len(openings()) > 4
    assert openings(one_wording=True) == {TASKS[task].wordings[0][:17]}


@pytest.mark.parametrize(
    ("source", "objects", "chosen", "message"),
    [
        (expressions((0, 0, "x")), None, {"task": "classify"}, "lack: name a file .* --objects"),
        (detections([(0, 0)]), None, {"task": "refer"}, "--task refer needs descriptions"),
        (expressions((0, 0, "x")), expressions(), {"task": "choose"}, "the file has no classes"),
        (
            expressions((0, 0, "x")),
            None,
            {"task": "refer", "per_class": 3},
            "--per-class: an object of 0.jpg has no class",
        ),
        (expressions(), None, {"task": "count"}, "task='count' is unknown; use classify"),
        (expressions(), None, {"task": "choose", "candidates": 1}, "candidates=1: give at least 2"),
        (expressions(), None, {"task": "choose", "none_share": 2.0}, "none_share=2.0"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(tmp_path, source, objects, chosen, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, source, objects, **chosen)


def test_nothing_left_to_ask_is_an_error_that_counts_and_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match=r"no row is left to write:\n +1  description of an object"):
        write(tmp_path, expressions((0, 0, "x")), task="choose")
    with pytest.raises(DataError, match="no row is left"):
        write(tmp_path, expressions(), task="caption")
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_other_sizes_under_one_name_are_refused(tmp_path):
    samples = [Sample("a.jpg", w, 80, [Instance(square(0), "x")], "", "x") for w in (100, 90)]
    with pytest.raises(DataError, match=r"a\.jpg is 100x80 in one place and 90x80 in another"):
        write(tmp_path, Source(iter(samples), None), task="refer")


PICTURES = st.lists(
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 2)), max_size=6, unique=True),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pictures=PICTURES,
    seed=st.integers(0, 3),
    per_class=st.none() | st.integers(1, 4),
    per_image=st.none() | st.integers(1, 4),
    turns=st.integers(1, 4),
)
def test_caps_hold_answers_are_true_and_a_seed_repeats_them(
    tmp_path, pictures, seed, per_class, per_image, turns
):
    def once():
        chosen = dict(task="classify", seed=seed, per_class=per_class, per_image=per_image)
        try:
            return write(tmp_path, detections(*pictures), **chosen, turns=turns)
        except DataError:
            return [], Ledger()

    rows, ledger = once()
    assert once()[0] == rows
    said = [(row["filename"], *pair) for row in rows for pair in asked(row)]
    true = Counter(
        (f"{number}.jpg", tuple(square(place)), CLASSES[label].removesuffix("_(weapon)"))
        for number, objects in enumerate(pictures)
        for place, label in objects
    )
    told = Counter((name, tuple(boxes[0]), answer) for name, (_, boxes), answer in said)
    assert told <= true
    assert len(said) + sum(ledger.counts.values()) == sum(true.values())
    assert max(Counter(answer for *_, answer in said).values(), default=0) <= (per_class or 99)
    assert max(Counter(name for name, *_ in said).values(), default=0) <= (per_image or 99)
    assert all(len(asked(row)) <= turns for row in rows)


COORDINATES = st.one_of(st.integers(-30, 130), st.floats(-30, 130), st.just(0.004))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=st.lists(st.lists(COORDINATES, min_size=4, max_size=4), max_size=5))
@example(boxes=[[-9, 0, 0.004, 9]])
def test_any_box_is_asked_about_inside_its_picture_or_counted(tmp_path, boxes):
    whole = [[x, 40, x + 8, 48] for x in (0, 50)]  # something is left to ask about
    instances = [Instance(box, "dog", 0) for box in [*whole, *boxes]]
    sample = Sample("0.jpg", *SIZE, instances, "there")
    source = Source(iter([sample]), 1, [{"name": "dog"}])
    rows, ledger = write(tmp_path, source, task="classify")
    asked_of = [region["bbox"] for row in rows for region in row["regions"]]
    for x1, y1, x2, y2 in asked_of:
        assert 0 <= x1 <= x2 - 1 <= SIZE[0] - 1
        assert 0 <= y1 <= y2 - 1 <= SIZE[1] - 1
    counted = sum(ledger.counts.values())
    assert len(asked_of) + counted <= len(instances)  # boxes that become equal are one object
    assert all(box in asked_of for box in whole)


def test_another_seed_draws_others_and_the_order_of_pictures_changes_nothing(tmp_path):
    pictures = [[(place, 0) for place in range(30)] for _ in range(4)]

    def drawn(seed, turned=False):
        source = detections(*pictures)
        samples = list(source.samples)
        source.samples = iter(samples[::-1] if turned else samples)
        rows, _ = write(tmp_path, source, task="classify", per_image=6, seed=seed)
        return {row["filename"]: row for row in rows}

    assert drawn(0) == drawn(0, turned=True)
    assert drawn(0) != drawn(1)
