"""Training, test and demo say the same of the same class names, however odd these are."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample

from llmdet.apis.questions import read_question
from llmdet.datasets.sample import grounding_of
from llmdet.datasets.transforms import RandomSamplingNegPos
from llmdet.errors import DataError
from llmdet.prompts import PromptText, PromptTokenizer
from llmdet.prompts.tokens import check_labels

ODD = (
    "St. Bernard",
    "a.b",
    "bow_(weapon)",
    "bow",
    "(all)",
    "",
    " . ",
    "cat",
    "catfish",
    "c(at",
    "[",
)
NAMES = st.lists(
    st.sampled_from(ODD)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=8),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def transform(bert_folder: str) -> RandomSamplingNegPos:
    return RandomSamplingNegPos(bert_folder, num_sample_negative=100, full_sampling_prob=1.0)


@pytest.fixture(scope="module")
def at_test_time(transform: RandomSamplingNegPos) -> Callable[[list[str]], PromptText]:
    """The one prompt of class names as evaluation makes it from a sample of mmdet's."""

    def write(names: list[str]) -> PromptText:
        (made,) = transform.tokenizer(grounding_of(DetDataSample(metainfo={"text": names})).prompt)
        return made

    return write


@given(NAMES, st.integers(0, 2**31))
@example(["dog", ""], 0)
@example(["cat", "catfish", "a cat", "cat", "c.t", "("], 0)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_training_test_and_demo_write_the_same(
    transform: RandomSamplingNegPos,
    at_test_time: Callable[[list[str]], PromptText],
    names: list[str],
    seed: int,
) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**31)
    sample = {
        "text": tuple(names),
        "gt_bboxes": np.zeros((0, 4), np.float32),
        "gt_bboxes_labels": np.zeros(0, np.int64),
    }
    try:
        expected = at_test_time(names)
    except DataError:  # none has a word, or one has no token
        with pytest.raises(DataError):
            transform(sample)
        return
    (trained,) = transform(sample)["tokenized"]
    # Training shuffles the classes; each is written as at test time, in the order it was drawn.
    assert sorted(trained.entities) == sorted(expected.entities)
    assert sorted(trained.text.split(". ")) == sorted(expected.text.split(". "))
    assert trained == at_test_time(list(trained.entities))
    (shown,) = transform.tokenizer(read_question(names))
    assert shown == expected


@given(NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_each_label_has_its_words_and_tokens_of_its_own_or_none(
    transform: RandomSamplingNegPos, names: list[str]
) -> None:
    tokenizer: PromptTokenizer = transform.tokenizer
    try:
        (made,) = tokenizer(read_question(names))
    except DataError:
        return
    assert len(made.entities) == len(names)
    assert (made.token_map.sum(axis=0) <= 1).all()  # no token stands for two classes
    assert not made.token_map[:, [0, -1]].any()
    for label, (name, spans) in enumerate(zip(made.entities, made.spans, strict=True)):
        assert [made.text[start:stop] for start, stop in spans] == [name] * bool(name)
        assert made.token_map[label].any() == bool(name)
        if name:
            check_labels([label], made)
