"""Tokenised conversations as one batch."""

from __future__ import annotations

import numpy as np
import torch

from llmdet.models.language.dialogue import collate_dialogue
from llmdet.prompts.conversation import (
    IGNORE_INDEX,
    ConversationSettings,
    Slot,
    TokenizedConversation,
)

PAD = 0
SETTINGS = ConversationSettings("any", (), 100)


def conversation(ids, learned=(), slots=()):
    ids = np.array(ids)
    labels = np.where(np.isin(np.arange(len(ids)), learned), ids, IGNORE_INDEX)
    return TokenizedConversation(ids, labels, tuple(slots), SETTINGS)


LONG = conversation([1, 0, 0, 2, 0, 3], [3, 5], [Slot("image", 0, 1, 2), Slot("region", 0, 4, 1)])
SHORT = conversation([4, 0, 5], [2], [Slot("region", 1, 1, 1)])


def test_training_pads_behind_and_generation_in_front():
    behind, front = (
        collate_dialogue([LONG, SHORT], PAD),
        collate_dialogue([LONG, SHORT], PAD, left=True),
    )
    assert behind.input_ids[1].tolist() == [4, 0, 5, PAD, PAD, PAD]
    assert front.input_ids[1].tolist() == [PAD, PAD, PAD, 4, 0, 5]
    assert behind.attention_mask[1].tolist() == [True] * 3 + [False] * 3
    assert front.attention_mask[1].tolist() == [False] * 3 + [True] * 3
    assert behind.padded
    assert not collate_dialogue([SHORT, SHORT], PAD).padded
    assert torch.equal(behind.input_ids[0], front.input_ids[0])


def test_slots_are_flat_positions_of_each_kind_in_order():
    behind, front = (
        collate_dialogue([LONG, SHORT], PAD),
        collate_dialogue([LONG, SHORT], PAD, left=True),
    )
    assert {kind: places.tolist() for kind, places in behind.slots.items()} == {
        "image": [1, 2],
        "region": [4, 6 + 1],
    }
    assert front.slots["region"].tolist() == [4, 6 + 3 + 1]


def test_supervised_positions_predict_the_next_label():
    for left in (False, True):
        batch = collate_dialogue([LONG, SHORT], PAD, left=left)
        flat = batch.labels.flatten()
        assert torch.equal(flat[batch.supervised + 1], batch.targets)
        assert batch.targets.tolist() == [2, 3, 5]
