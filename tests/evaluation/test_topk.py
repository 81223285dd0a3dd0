"""The best detections of a class are the same however they arrive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.evaluation.topk import TopDetections, top_per_group


def make(random, images, per_image, classes):
    """DetectionTable with many equal scores, by image."""
    return [
        (
            image,
            random.random((per_image, 4)).astype(np.float32),
            (random.integers(0, 6, per_image) / 8).astype(np.float32),
            random.integers(0, classes, per_image),
        )
        for image in range(images)
    ]


def collect(parts, limit, rows_before_cut):
    top = TopDetections(limit, rows_before_cut)
    for part in parts:
        top.add(*part)
    images, labels, boxes, scores, places = top.arrays()
    order = np.lexsort((places, images))
    return tuple(column[order] for column in (images, labels, boxes, scores, places))


def reference(parts, limit):
    """A plain sort of everything."""
    rows = [
        (int(label), -float(score), image, place)
        for image, _, scores, labels in parts
        for place, (score, label) in enumerate(zip(scores, labels, strict=True))
    ]
    kept = []
    for label in {row[0] for row in rows}:
        kept += sorted(row for row in rows if row[0] == label)[:limit]
    return sorted((image, place) for _, _, image, place in kept)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from([1, 7, 30, 10_000]))
def test_cutting_early_or_late_keeps_what_a_sort_of_everything_keeps(seed, limit, rows):
    random = np.random.default_rng(seed)
    parts = make(random, images=6, per_image=8, classes=3)
    wanted = reference(parts, limit)
    for order in (range(6), random.permutation(6)):
        images, *_, places = collect([parts[index] for index in order], limit, rows)
        assert list(zip(images.tolist(), places.tolist(), strict=True)) == wanted


def test_memory_is_bounded_by_classes_and_limit():
    random = np.random.default_rng(0)
    top = TopDetections(limit=5, rows_before_cut=50)
    for part in make(random, images=200, per_image=20, classes=4):
        top.add(*part)
        assert len(top._kept[0]) <= 5 * 4
        assert top._rows < 50 + 20
    assert len(top.arrays()[0]) == 20


def test_nothing_collected_is_nothing_kept():
    assert [len(column) for column in TopDetections(3).arrays()] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("shift", [0, -3, 1 << 40])
def test_groups_may_have_any_numbers(shift):
    groups = np.asarray([1, 2, 1, 1, 2]) + shift
    kept = top_per_group(groups, np.asarray([0.1, 0.2, 0.3, 0.3, 0.1]), limit=1)
    assert kept.tolist() == [False, True, True, False, False]
