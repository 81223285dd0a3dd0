"""Rows of unlike lengths in groups."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmdet.models.language import language_model
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.language.row_groups import group_rows
from llmdet.prompts.conversation import ConversationSettings, ask
from llmdet.prompts.conversation_tokens import ConversationTokenizer


def cost(groups, lengths, call):
    return sum(call + len(rows) * max(lengths[row] for row in rows) for rows in groups)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(0, 80))
def test_no_other_groups_of_neighbours_cost_less(lengths, call):
    groups = group_rows(lengths, call)
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    every = [
        [order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for count in range(len(order))
        for cuts in combinations(range(1, len(order)), count)
    ]
    assert cost(groups, lengths, call) == min(cost(each, lengths, call) for each in every)


def test_equal_rows_are_read_in_one_call():
    assert group_rows([7] * 5) == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("groups", [[[2], [0], [1]], [[2, 0], [1]], [[0, 1, 2]]])
def test_states_and_gradients_do_not_depend_on_the_groups(make_lmm, folder, monkeypatch, groups):
    lmm = make_lmm(folder, dtype="float32")
    settings = ConversationSettings(lmm.tokenizer_name, (("region", 1),), 100)
    tokenize = ConversationTokenizer(lmm.tokenizer, settings)
    answers = ("Red circle.", "A large yellow star is to the left of a blue ring.", "Blue square.")
    said = [tokenize(ask("<region>\nDescribe the region in a phrase.", each)) for each in answers]
    features = torch.rand(3, lmm.hidden_size, generator=torch.Generator().manual_seed(0))

    def read(rows, grouped):
        monkeypatch.setattr(language_model, "group_rows", grouped)
        dialogue = collate_dialogue([said[row] for row in rows], lmm.pad_id)
        lmm.zero_grad()
        given_features = {"region": features[list(rows)]}
        lmm.loss(dialogue, given_features).backward()
        gradients = [p.grad.clone() for p in lmm.parameters() if p.grad is not None]
        return lmm.states(dialogue, given_features), gradients, dialogue.lengths

    states, gradients, lengths = read(range(3), lambda lengths: groups)
    _, expected, _ = read(range(3), lambda lengths: [[0, 1, 2]])
    for gradient, whole in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-6)
    for row in range(3):
        alone, *_ = read([row], lambda lengths: [[0]])
        torch.testing.assert_close(states[row, : lengths[row]], alone[0], rtol=1e-4, atol=1e-5)
