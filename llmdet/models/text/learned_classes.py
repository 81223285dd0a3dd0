"""Classes that were learned from examples: what is added to the text features of their names.

A name keeps its tokens, their positions and their attention mask, so that a learned class is
written, chunked and mixed with others as any class is. Its tokens enter the encoder as the text
features of the name plus one offset, which is all that is learned: at zero the class is its name,
and a prompt without learned classes is not touched. One for all tokens of a name, as more numbers
learn a few images by heart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from torch import Tensor, nn

from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.structures import TextFeatures
from llmdet.prompts.class_names import class_key
from llmdet.prompts.types import TokenizedPrompt

#: Where a detector has them.
PART = "learned_classes"


class LearnedClasses(nn.Module):
    """The offset of each learned class.

    The names of the parameters are the classes, so that a checkpoint says which it has:
    ``learned_classes.<my part>``. Spellings of a name that differ in capitals are one class.

    Args:
        dims: C, the width of mapped text features.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order in which they were added."""
        return tuple(map(_name_of, self._parameters))

    def __contains__(self, name: str) -> bool:
        return _entry(name) in self._parameters

    def __getitem__(self, name: str) -> nn.Parameter:
        """The offset [C] of a class."""
        offset = self._parameters[_entry(name)]
        assert offset is not None
        return offset

    def put(self, name: str, offset: Tensor) -> nn.Parameter:
        """Make ``name`` a class of this offset [C], in the place of an earlier one."""
        parameter = nn.Parameter(offset.detach().clone())
        self._parameters[_entry(name)] = parameter
        return parameter

    def begin(self, names: Sequence[str]) -> None:
        """Make classes of names that have learned nothing yet.

        Raises:
            ConfigError: these are no names.
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"model.learned_classes={names!r}; give class names in a list")
        for name in filter(class_key, names):  # a class without a word is found nowhere
            self.put(name, torch.zeros(self.dims))

    def remove(self, name: str) -> None:
        """Make a class its name again."""
        del self._parameters[_entry(name)]

    def forward(self, text: TextFeatures, prompts: Sequence[TokenizedPrompt | str]) -> TextFeatures:
        """Add the offsets where a prompt names a learned class.

        Args:
            text: mapped features [B, L, C]; returned as they are where nothing is learned.
            prompts: B prompts; bare texts name no class.
        """
        places, offsets = self._named(prompts)
        if not offsets and not (self._parameters and torch.is_grad_enabled()):
            return text
        embedded = text.embedded
        if offsets:
            index = torch.tensor(places).to(embedded.device, non_blocking=True)
            added = torch.stack(offsets).to(embedded.dtype)
            embedded = embedded.index_put((index[:, 0], index[:, 1]), added, accumulate=True)
        if torch.is_grad_enabled():
            # Every class has a gradient in every step, or processes would wait for each other.
            zero = sum(parameter.sum() for parameter in self.parameters()) * 0
            embedded = embedded + torch.as_tensor(zero).to(embedded.dtype)
        return dataclasses.replace(text, embedded=embedded)

    def _named(
        self, prompts: Sequence[TokenizedPrompt | str]
    ) -> tuple[list[tuple[int, int]], list[Tensor]]:
        """Row and place of each token of a learned class, and the offset [C] of each."""
        places: list[tuple[int, int]] = []
        offsets: list[Tensor] = []
        if not self._parameters:
            return places, offsets
        for row, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                continue
            for name, tokens in zip(prompt.entities, prompt.token_map, strict=True):
                if name in self:
                    at = np.flatnonzero(tokens).tolist()
                    places += [(row, token) for token in at]
                    offsets += [self[name]] * len(at)
        return places, offsets

    def adopt(self, state_dict: Mapping[str, Tensor], prefix: str = f"{PART}.") -> None:
        """Make room for the classes of a checkpoint; its values are loaded as all others.

        Args:
            state_dict: under the names of a detector, each part's after ``prefix``.
            prefix: of the learned classes.

        Raises:
            CheckpointError: an entry is no learned class of this width.
        """
        for key, value in state_dict.items():
            entry = key.removeprefix(prefix)
            if not key.startswith(prefix) or entry in self._parameters:
                continue
            if entry != _entry(_name_of(entry)) or value.shape != (self.dims,):
                raise CheckpointError(
                    f"{key!r} {tuple(value.shape)} is no learned class of a detector of width "
                    f"{self.dims}: it was learned with another model."
                )
            like = next(self.parameters(), value)
            self._parameters[entry] = nn.Parameter(torch.zeros_like(value, device=like.device))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self.adopt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _entry(name: str) -> str:
    # The brackets keep a class apart from attributes of the module; dots would be levels.
    return f"<{quote(class_key(name), safe=' ').replace('.', '%2E')}>"


def _name_of(entry: str) -> str:
    return unquote(entry.removeprefix("<").removesuffix(">"))
