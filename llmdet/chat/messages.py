"""What is asked of a language model, and the protocol by which it answers."""

from __future__ import annotations

import threading
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
    seed: int = 0  # of the sampling; another one gives another answer to the same question


def ask(text: str, *images: Image.Image, temperature: float = 0.0, seed: int = 0) -> ChatRequest:
    """A request of a single turn of the user."""
    return ChatRequest((Message("user", text, images),), temperature, seed)


@dataclass(frozen=True)
class Pace:
    """How requests reach a model; it does not decide what comes out.

    Attributes:
        batch_size: requests of one call; more for a model in this process.
        concurrency: calls under way at a time; more for an endpoint.
    """

    batch_size: int = 1
    concurrency: int = 1


class Usage:
    """What a model was asked for in this process; several threads may add to it."""

    def __init__(self) -> None:
        self.requests = 0
        self.prompt_tokens = 0
        self.answer_tokens = 0
        self._lock = threading.Lock()

    def add(self, requests: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Count requests that were answered, and their tokens, 0 where the model names none."""
        with self._lock:
            self.requests += requests
            self.prompt_tokens += prompt_tokens
            self.answer_tokens += answer_tokens


class ChatModel(Protocol):
    """What every model offers."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answers, as JSON: model, endpoint, length of an answer."""

    @property
    def pace(self) -> Pace:
        """How many requests it takes at a time."""

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """One answer for each request, in their order; may be called from several threads."""
