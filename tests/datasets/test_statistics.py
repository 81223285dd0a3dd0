import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llmdet.datasets import statistics
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.statistics import Distribution, collect, plot


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_distribution_agrees_with_numpy(values: list[int], fraction: float) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    assert distribution.total == len(values)
    assert distribution.mean == pytest.approx(np.mean(values))
    expected = np.quantile(values, fraction, method="inverted_cdf")
    assert distribution.quantile(fraction) == expected


def grounding_sample() -> Sample:
    return Sample(
        "a.jpg",
        200,
        100,
        [
            Instance([0, 0, 10, 10], "A red ball", None, [[2, 10]]),
            Instance([0, 0, 50, 50], "A red ball", None, [[2, 10]]),
            Instance([0, 0, 150, 100], ["grass", "green"], None, [[14, 19]]),
            Instance([0, 0, 1, 1], "crowd", None, [[2, 10]], ignored=True),
        ],
        "a:1",
        caption="a red ball on grass",
        fields={
            "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "One two."}]
        },
    )


def test_samples_are_counted_by_box_phrase_and_caption() -> None:
    found = collect([grounding_sample(), Sample("b.jpg", 9, 9, [], "a:2")], lambda t: len(t))
    assert found.facts == {
        "images": 2,
        "boxes": 3,
        "crowd or difficult boxes": 1,
        "images without boxes": 1,
        "captions": 1,
    }
    assert found.boxes_per_image.counts == {3: 1, 0: 1}
    assert found.phrases_per_text.counts == {2: 1}
    assert found.words_per_phrase.counts == {3: 2, 1: 1}
    assert found.words_per_caption.counts == {2: 1}
    assert found.tokens_per_text.counts == {19: 1}
    assert found.box_sizes == {"small": 1, "medium": 1, "large": 1}
    assert found.classes == {"a red ball": 2, "grass": 1}


def test_counts_of_rare_phrases_are_bounded_and_that_is_said(monkeypatch) -> None:
    monkeypatch.setattr(statistics, "MOST_PHRASES", 3)
    samples = [
        Sample("a", 9, 9, [Instance([0, 0, 1, 1], name, 0)], "")
        for name in [*"aabbcc", *map(str, range(20))]
    ]
    found = collect(samples)
    assert len(found.classes) <= 7
    assert found.classes["a"] == found.classes["b"] == found.classes["c"] == 2
    assert found.facts["times that counts of rare phrases were dropped"] > 0


def test_the_table_and_the_json_file_hold_the_same_numbers() -> None:
    found = collect([grounding_sample()])
    assert "1 images, 3 boxes" in found.table()
    assert "tokens per text" not in found.table()  # no tokenizer, no row
    content = json.loads(json.dumps(found.as_dict()))
    assert content["boxes per image"] == {
        "number": 1,
        "mean": 3.0,
        "min": 3,
        "p50": 3,
        "p90": 3,
        "p99": 3,
        "max": 3,
    }
    assert content["boxes per class or phrase"] == {"a red ball": 2, "grass": 1}


@pytest.mark.parametrize("samples", [[], [grounding_sample()]])
def test_plots_are_drawn_of_any_number_of_samples(tmp_path: Path, samples) -> None:
    plot(collect(samples), tmp_path / "new" / "stats.png")
    with Image.open(tmp_path / "new" / "stats.png") as picture:
        assert np.array(picture).std() > 0


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=30).map(sorted))
def test_bars_cover_every_number_and_equally_many(numbers: list[int]) -> None:
    edges = statistics._bins(numbers)
    assert edges[0] < numbers[0]
    assert edges[-1] > numbers[-1]
    assert len(set(np.diff(edges))) == 1
    assert len(edges) <= 53
