"""Sub-sentence attention: several short texts in one prompt that do not see each other.

Grounding DINO (Liu et al. 2023, section 3.4) joins class names to one text, "cat. dog. ", but
keeps each name's embedding free of its neighbours: attention stays between two special tokens and
the position ids restart after each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sub_sentence_attention(
    input_ids: Tensor, token_mask: Tensor, special_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention mask and position ids of prompts whose sub-sentences end at special tokens.

    A sub-sentence is a run of tokens together with the special token that closes it. Padding
    attends to itself only, so that no row is fully masked and neighbours in the batch never
    change a prompt's embedding.

    Args:
        input_ids: [B, L] int64.
        token_mask: [B, L] bool, True at tokens, False at padding.
        special_ids: [n] int64, ids of the closing tokens ([CLS] [SEP] . ?).

    Returns:
        attention_mask: [B, L, L] bool, True where the row's token attends to the column's.
        position_ids: [B, L] int64, counted from 0 in each sub-sentence, 0 at padding.
    """
    special = torch.isin(input_ids, special_ids) & token_mask
    index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    opens = torch.zeros_like(special)
    opens[:, 1:] = special[:, :-1]
    segment = opens.cumsum(dim=1)  # [B, L]
    start = torch.where(opens, index, torch.zeros_like(index)).cummax(dim=1).values
    position_ids = (index - start) * token_mask

    same = segment[:, :, None] == segment[:, None, :]  # [B, L, L]
    both = token_mask[:, :, None] & token_mask[:, None, :]
    itself = torch.eye(input_ids.shape[1], dtype=torch.bool, device=input_ids.device)
    return (same & both) | itself, position_ids


def full_attention(token_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention mask and position ids of prompts read as one sentence (plain BERT).

    Args:
        token_mask: [B, L] bool, True at tokens, False at padding.

    Returns:
        attention_mask [B, L, L] bool and position_ids [B, L] int64 as in
        :func:`sub_sentence_attention`.
    """
    length = token_mask.shape[1]
    index = torch.arange(length, device=token_mask.device)
    itself = torch.eye(length, dtype=torch.bool, device=token_mask.device)
    return (token_mask[:, :, None] & token_mask[:, None, :]) | itself, index * token_mask
