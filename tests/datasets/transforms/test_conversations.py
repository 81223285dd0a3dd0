"""Conversations tokenised in workers."""

from __future__ import annotations

import numpy as np
import pytest

from llmdet.datasets.transforms import TokenizeConversations
from llmdet.datasets.transforms.conversations import CUT, UNREAD
from llmdet.engine.conversations import share_settings
from llmdet.prompts.conversation import ConversationSettings, ask
from llmdet.prompts.conversation_tokens import ConversationTokenizer
from llmdet.prompts.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    from llmdet.datasets.toy.models import tiny_qwen

    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def settings(qwen):
    return (
        ConversationSettings(qwen, (("image", 5),), 100),
        ConversationSettings(qwen, (("region", 1),), 40),
    )


def test_each_conversation_is_tokenised_by_the_settings_that_read_its_marks(settings, qwen):
    conversations = (ask("<image>\nWhat?", "A star."), ask("<region:2>\nWhat?", "Star."))
    results = TokenizeConversations(settings).transform({"conversations": conversations})
    tokenizer = load_tokenizer(qwen)
    for made, given, its in zip(results["conversations"], conversations, settings, strict=True):
        expected = ConversationTokenizer(tokenizer, its)(given)
        assert made == given
        assert np.array_equal(made.tokens.ids, expected.ids)
        assert made.tokens.slots == expected.slots


def test_what_no_settings_read_stays_without_tokens_and_is_counted(settings):
    both = ask("Is <region> in <image>?", "Yes.")
    transform = TokenizeConversations(settings)
    made = transform.transform({"conversations": (both,)})
    assert made["conversations"][0].tokens is None
    assert transform.dropped.counts == {UNREAD: 1}


def test_a_conversation_beyond_max_length_is_cut_and_counted(settings):
    transform = TokenizeConversations(settings)
    said = (ask("<region>\nWhat?", "A star. " * 40), ask("<region>\nWhat?", "A star."))
    long, short = transform.transform({"conversations": said})["conversations"]
    assert len(long.tokens.ids) == 40
    assert long.tokens.cut
    assert not short.tokens.cut
    assert transform.dropped.counts == {CUT: 1}


def test_without_settings_the_model_is_left_to_tokenise():
    made = TokenizeConversations().transform({"conversations": (ask("<image>", "A star."),)})
    assert made["conversations"][0].tokens is None
    assert TokenizeConversations().transform({})["conversations"] == ()


def test_added_tokens_of_an_output_are_single_tokens(qwen):
    settings = ConversationSettings(qwen, (("image", 2),), 100, added_tokens=("<yes>", "<no>"))
    results = {"conversations": (ask("<image>\nWhat?", "<yes>"),)}
    made = TokenizeConversations([settings]).transform(results)["conversations"][0]
    first = len(load_tokenizer(qwen))
    assert (made.tokens.labels == first).sum() == 1


def test_the_models_settings_reach_every_pipeline_that_has_none(settings):
    given = (settings[0],)
    loader = {
        "dataset": {
            "datasets": [
                {"pipeline": [{"type": "LoadImageFromFile"}, {"type": "TokenizeConversations"}]},
                {"pipeline": [{"type": "TokenizeConversations", "settings": given}]},
            ]
        }
    }

    class Model:
        def conversation_settings(self):
            return settings

        def view_settings(self):
            return {"clip": "its view"}

    views = {"type": "MakeViews"}
    loader["dataset"]["datasets"].append({"pipeline": [views]})
    share_settings(Model(), loader)
    assert loader["dataset"]["datasets"].pop()["pipeline"] == [
        {"type": "MakeViews", "settings": {"clip": "its view"}}
    ]
    first, second = (part["pipeline"][-1]["settings"] for part in loader["dataset"]["datasets"])
    assert first == settings
    assert second == given
    share_settings(object(), loader)  # a plain detector
