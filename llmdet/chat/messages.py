"""What is asked of a language model, and the protocol by which it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Message:
    """One turn: images first, then text."""

    role: str  # "system", "user" or "assistant"
    text: str
    images: tuple[Image.Image, ...] = ()  # RGB


@dataclass(frozen=True)
class ChatRequest:
    """A conversation whose next turn the model is to write."""

    messages: tuple[Message, ...]
    temperature: float = 0.0  # 0 takes the most likely answer, more of it samples


def ask(text: str, *images: Image.Image, temperature: float = 0.0) -> ChatRequest:
    """A request of a single turn of the user."""
    return ChatRequest((Message("user", text, images),), temperature)


class ChatModel(Protocol):
    """What every model offers."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answers, as JSON: model, endpoint, length of an answer."""

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """One answer for each request, in their order."""
