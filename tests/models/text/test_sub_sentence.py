"""Attention and positions between special tokens."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmdet.models.text.sub_sentence import full_attention, sub_sentence_attention

PAD, CLS, SEP, DOT = 0, 2, 3, 12
SPECIAL = torch.tensor([CLS, SEP, DOT])


def attend(*rows: list[int]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    return sub_sentence_attention(ids, ids != PAD, SPECIAL)


def walk(ids: list[int], length: int) -> tuple[Tensor, Tensor]:
    """The same, token by token: a sub-sentence is closed by its special token."""
    mask, positions = torch.eye(length, dtype=torch.bool), torch.zeros(length, dtype=torch.long)
    start = 0
    for i, token in enumerate(ids):
        positions[i] = i - start
        mask[start : i + 1, start : i + 1] = True
        if token in (CLS, SEP, DOT):
            start = i + 1
    return mask, positions


def test_tokens_see_their_own_sub_sentence_and_count_from_zero_in_it() -> None:
    mask, positions = attend([CLS, 20, 21, DOT, 22, DOT, SEP])
    assert positions.tolist() == [[0, 0, 1, 2, 0, 1, 0]]
    seen = [row.nonzero().flatten().tolist() for row in mask[0]]
    assert seen == [[0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5], [4, 5], [6]]


def test_padding_sees_only_itself_and_is_seen_by_nobody() -> None:
    mask, positions = attend([CLS, 20, SEP], [CLS, 20, 21, 22, DOT, SEP])
    assert mask[0, 3:].equal(torch.eye(6, dtype=torch.bool)[3:])
    assert not mask[0, :3, 3:].any()
    assert positions[0, 3:].tolist() == [0, 0, 0]


def test_a_sentence_without_final_dot_is_closed_by_sep_whatever_its_neighbours() -> None:
    alone, alone_positions = attend([CLS, 20, 21, SEP])
    padded, padded_positions = attend([CLS, 20, 21, SEP], [CLS, 20, 21, 22, DOT, SEP])
    assert padded[0, :4, :4].equal(alone[0])
    assert padded_positions[0, :4].equal(alone_positions[0])
    assert alone[0, 1].tolist() == [False, True, True, True]


_prompts = st.lists(
    st.lists(st.sampled_from([DOT, 20, 21]), max_size=12).map(lambda body: [CLS, *body, SEP]),
    min_size=1,
    max_size=4,
)


@given(_prompts)
@settings(max_examples=60, deadline=None)
def test_batches_agree_with_a_walk_over_the_tokens(rows: list[list[int]]) -> None:
    mask, positions = attend(*rows)
    for i, row in enumerate(rows):
        expected_mask, expected_positions = walk(row, mask.shape[1])
        assert mask[i].equal(expected_mask)
        assert positions[i].equal(expected_positions)


def test_full_attention_spans_the_prompt_but_not_its_padding() -> None:
    mask, positions = full_attention(torch.tensor([[True, True, False], [True, True, True]]))
    assert mask.int().tolist() == [
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    ]
    assert positions.tolist() == [[0, 1, 0], [0, 1, 2]]
