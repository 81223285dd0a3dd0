"""Tokenised conversations as one batch of index tensors.

Made on the host, so that which positions are supervised is known without asking the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmdet.prompts.conversation import IGNORE_INDEX, TokenizedConversation


@dataclass(frozen=True)
class DialogueBatch:
    """R conversations with any number of slots, padded to T tokens."""

    input_ids: Tensor  # [R, T] int64, the pad id in slots and padding
    labels: Tensor  # [R, T] int64, IGNORE_INDEX where nothing is learned
    attention_mask: Tensor  # [R, T] bool, True at tokens
    slots: Mapping[str, Tensor]  # kind -> [n] int64 into R * T, conversation after conversation
    supervised: Tensor  # [n] int64 into R * T: positions whose next token has a label
    targets: Tensor  # [n] int64, these labels
    lengths: tuple[int, ...]  # R, tokens of each

    @property
    def padded(self) -> bool:
        """Whether any conversation is shorter than T."""
        return min(self.lengths) < self.input_ids.shape[1]


def fill_slots(words: Tensor, dialogue: DialogueBatch, features: Mapping[str, Tensor]) -> Tensor:
    """Embeddings [R, T, H]: words, features in their slots, zero padding.

    Args:
        words: [R, T, H] embeddings of ``dialogue.input_ids``.
        dialogue: R conversations of T tokens.
        features: per kind of slot [n, H], in the order of ``dialogue.slots``.
    """
    words = words * dialogue.attention_mask[..., None].to(words.dtype)
    flat = words.flatten(0, 1)
    for kind, values in features.items():
        flat = flat.index_put((dialogue.slots[kind],), values.to(flat.dtype))
    return flat.view_as(words)


def collate_dialogue(
    conversations: Sequence[TokenizedConversation],
    pad_id: int,
    device: torch.device | str = "cpu",
    *,
    left: bool = False,
) -> DialogueBatch:
    """Pad conversations to the longest of them.

    Args:
        conversations: R of them.
        pad_id: what fills up.
        device: where the batch shall be; the host does not wait for the copy.
        left: pad in front, as generation wants it, instead of behind.
    """
    lengths = [len(conversation.ids) for conversation in conversations]
    shape = len(conversations), max(lengths)
    starts = [shape[1] - length if left else 0 for length in lengths]
    ids, labels = np.full(shape, pad_id), np.full(shape, IGNORE_INDEX)
    mask = np.zeros(shape, dtype=bool)
    slots: dict[str, list[np.ndarray]] = {}
    for row, (conversation, start) in enumerate(zip(conversations, starts, strict=True)):
        tokens = slice(start, start + lengths[row])
        ids[row, tokens], labels[row, tokens] = conversation.ids, conversation.labels
        mask[row, tokens] = True
        for slot in conversation.slots:
            first = row * shape[1] + start + slot.start
            slots.setdefault(slot.kind, []).append(np.arange(first, first + slot.length))
    rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero()

    def moved(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return DialogueBatch(
        input_ids=moved(ids),
        labels=moved(labels),
        attention_mask=moved(mask),
        slots={kind: moved(np.concatenate(places)) for kind, places in slots.items()},
        supervised=moved(rows * shape[1] + columns),
        targets=moved(labels[rows, columns + 1]),
        lengths=tuple(lengths),
    )
