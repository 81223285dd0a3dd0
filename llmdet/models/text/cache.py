"""A cache of encoded prompts: LVIS has the same thirty-one for every image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from torch import Tensor


class PromptCache:
    """Least-recently-used store of token embeddings, one entry per prompt, without padding.

    Args:
        max_tokens: tokens kept over all prompts; at BERT-base's width 65,536 tokens take 200 MB.
    """

    def __init__(self, max_tokens: int = 65_536) -> None:
        self.max_tokens = max_tokens
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._tokens = 0
        self._owner: Hashable = None

    def __len__(self) -> int:
        return len(self._entries)

    def claim(self, owner: Hashable) -> None:
        """Forget everything unless the entries were made by ``owner``, the encoder's state."""
        if owner != self._owner:
            self.clear()
            self._owner = owner

    def clear(self) -> None:
        self._entries.clear()
        self._tokens = 0

    def get(self, key: Hashable) -> Tensor | None:
        """The embedding [L, C] kept under ``key``, which becomes the most recent one, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Hashable, embedded: Tensor) -> None:
        """Keep ``embedded`` [L, C]; the oldest entries leave when there are too many tokens."""
        self._tokens -= _length(self._entries.pop(key, None))
        self._entries[key] = embedded
        self._tokens += len(embedded)
        while self._tokens > self.max_tokens:
            self._tokens -= _length(self._entries.popitem(last=False)[1])


def parameters_version(parameters: Iterable[Tensor]) -> Hashable:
    """A value that changes when a parameter is replaced, moved, or written to in place.

    Autograd counts in-place writes per tensor; writes through ``tensor.data`` are not counted,
    which is why the encoder also clears its cache whenever it changes between ``train()`` and
    ``eval()`` (mmengine calls these around every swap of averaged weights).
    """
    return tuple(
        (p.data_ptr(), p.dtype, p.device, 0 if p.is_inference() else p._version) for p in parameters
    )


def _length(entry: Tensor | None) -> int:
    return 0 if entry is None else len(entry)
