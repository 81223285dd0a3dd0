"""Generation that can only say what names candidates: a processor of logits for transformers.

An answer is free text with any number of ``<ground>phrase</ground><objects><obj1><obj4></objects>``
in it. Where an answer stands in this grammar follows from the last delimiter that it has, so that
sampling and beam search, which change the order of rows, need no memory of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from llmdet.models.language.dialogue import DialogueBatch
from llmdet.prompts.objects import (
    CLOSE_OBJECTS,
    CLOSE_PHRASE,
    OBJECT,
    OPEN_OBJECTS,
    OPEN_PHRASE,
)

#: Tokens that must follow until a group is closed: ``</ground><objects><obj1></objects>`` behind a
#: word, that and a word behind ``<ground>``, and ``</objects>`` behind an object.
_BEHIND_OPENING, _BEHIND_WORD, _BEHIND_OBJECT = 5, 4, 1


@dataclass(frozen=True)
class ObjectTokens:
    """Ids of the marks in a vocabulary."""

    objects: tuple[int, ...]  # by index
    delimiters: tuple[int, ...]  # OPEN_PHRASE, CLOSE_PHRASE, OPEN_OBJECTS, CLOSE_OBJECTS
    end: int  # ends the turn

    @cached_property
    def kinds(self) -> dict[int, int]:
        """Id of each mark -> its kind."""
        return dict.fromkeys(self.objects, OBJECT) | {
            token: kind for kind, token in enumerate(self.delimiters)
        }


def live_candidates(dialogue: DialogueBatch, tokens: ObjectTokens) -> Tensor:
    """[R, count] bool: the candidates whose token stands in front of a region's features."""
    rows, length = dialogue.input_ids.shape
    ids = dialogue.input_ids.flatten()
    objects = ids.new_tensor(tokens.objects)
    live = torch.zeros(rows, len(objects), dtype=torch.bool, device=ids.device)
    slots = dialogue.slots.get("region")
    if slots is None:
        return live
    before = slots[slots % length > 0] - 1
    place, index = (ids[before, None] == objects).nonzero(as_tuple=True)
    live[before[place] // length, index] = True
    return live


class ObjectConstraint:
    """Allows the tokens that continue an answer of this grammar; called by ``generate``.

    Args:
        tokens: ids of the marks.
        live: [R, count] bool, the candidates of each conversation.
        limit: most tokens of an answer, before whose end every group is closed; None for no limit.
    """

    def __init__(self, tokens: ObjectTokens, live: Tensor, limit: int | None = None) -> None:
        self.tokens, self.live, self.limit = tokens, live, limit
        self.objects = live.new_tensor(tokens.objects, dtype=torch.int64)
        self.delimiters = live.new_tensor(tokens.delimiters, dtype=torch.int64)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, V] of the next token, minus infinity where it is not allowed.

        Args:
            input_ids: [rows, t] what has been said; rows are the R conversations, each as often
                as there are beams or answers of it.
            scores: [rows, V].
        """
        live = self.live.repeat_interleave(len(input_ids) // len(self.live), 0)
        said = torch.cat([self.delimiters[CLOSE_OBJECTS].expand(len(live), 1), input_ids], 1)
        state, last = self._state(said)
        words = said.shape[1] - 1 - last  # [rows] tokens behind the last delimiter
        named = self._named(said, last)
        left = math.inf if self.limit is None else self.limit - input_ids.shape[1]
        free, phrase, listing = (
            state == kind for kind in (CLOSE_OBJECTS, OPEN_PHRASE, OPEN_OBJECTS)
        )
        begun = named.any(1)
        text = free | (phrase & ((words == 0) | (left > _BEHIND_WORD)))
        allowed = text[:, None].expand(scores.shape).clone()
        allowed[:, self.tokens.end] = free
        more = listing & (~begun | (left > _BEHIND_OBJECT))
        allowed[:, self.objects] = live & (free[:, None] | (more[:, None] & ~named))
        opened, closed, before, behind = self.tokens.delimiters
        allowed[:, opened] = free & live.any(1) & (left > _BEHIND_OPENING)
        allowed[:, closed] = phrase & (words > 0)
        allowed[:, before] = state == CLOSE_PHRASE
        allowed[:, behind] = listing & begun
        ended = (input_ids == self.tokens.end).any(1)
        return scores.masked_fill(~(allowed | ended[:, None]), -torch.inf)

    def _state(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """The kind [rows] of the last delimiter of each row, and where [rows] it stands."""
        is_delimiter = said[..., None] == self.delimiters  # [rows, t, 4]
        places = torch.arange(1, said.shape[1] + 1, device=said.device)
        last = (is_delimiter.any(-1) * places).argmax(1)
        found = is_delimiter[torch.arange(len(said), device=said.device), last]  # [rows, 4]
        return found.long().argmax(1), last

    def _named(self, said: Tensor, last: Tensor) -> Tensor:
        """[rows, count] bool: objects behind the last delimiter."""
        behind = torch.arange(said.shape[1], device=said.device) > last[:, None]
        return ((said[..., None] == self.objects) & behind[..., None]).any(1)
