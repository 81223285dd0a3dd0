"""A model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, a hosted one."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from llmdet.chat.messages import ChatRequest, Pace, Usage
from llmdet.errors import ConfigError, DataError

RETRIES = 5
TIMEOUT_SECONDS = 300.0
_JPEG_QUALITY = 92
_BUSY = frozenset({408, 409, 429})  # and every 5xx: the client has tried these again already


class EndpointChat:
    """Requests are sent at the same time; the openai client tries busy servers again.

    The key, where the server wants one, comes from ``OPENAI_API_KEY``.

    Args:
        url: the base of the interface, for example ``http://localhost:8000/v1``.
        model: the name by which the server knows the model.
        max_new_tokens: the longest answer.
        concurrency: requests under way at a time.
        timeout: seconds that one attempt may take.

    Raises:
        ConfigError: the client is not installed, the url is no http address, or the server
            refuses a request.
        DataError: the server cannot be reached, stays busy, or answers nonsense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        max_new_tokens: int = 512,
        *,
        concurrency: int = 8,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url!r} must begin with http:// or https://")
        try:
            import openai
        except ImportError:
            raise ConfigError(
                "an endpoint is asked through the openai package: pip install 'llmdet[chat]'"
            ) from None
        self.url = url.rstrip("/")
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.pace = Pace(concurrency=concurrency)
        self.usage = Usage()
        # Servers that want no key ignore it; the client insists on one.
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.OpenAI(
            base_url=self.url, api_key=key, max_retries=RETRIES, timeout=timeout
        )
        self._pool = ThreadPoolExecutor(concurrency)

    @property
    def identity(self) -> dict[str, Any]:
        """Endpoint, model and length of an answer."""
        return {"url": self.url, "model": self.model, "max_new_tokens": self.max_new_tokens}

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Send all requests at the same time."""
        if len(requests) == 1:  # of a caller that has threads of its own
            return [self._send(requests[0])]
        return list(self._pool.map(self._send, requests))

    def _send(self, request: ChatRequest) -> str:
        import openai

        try:
            completion: Any = self._client.chat.completions.create(
                model=self.model,
                messages=_messages(request),
                max_tokens=self.max_new_tokens,
                temperature=request.temperature,
                seed=request.seed if request.temperature else openai.omit,
            )
        except openai.APIStatusError as error:
            problem = f"status {error.status_code}: {error.response.text[:300]}"
            if error.status_code in _BUSY or error.status_code >= 500:
                raise DataError(
                    f"{self.url} gave no answer in {1 + RETRIES} attempts, {problem}"
                ) from None
            raise ConfigError(f"{self.url} refused the request, {problem}") from None
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise DataError(
                f"{self.url} gave no answer in {1 + RETRIES} attempts: "
                f"{type(reason).__name__} {reason}"
            ) from None
        except (openai.APIError, ValueError) as error:
            raise DataError(f"{self.url} answered nonsense: {error}") from None
        try:
            answer = completion.choices[0].message.content or ""
        except (AttributeError, LookupError, TypeError):
            raise DataError(
                f"{self.url} answered {str(completion)[:200]!r}, not a completion"
            ) from None
        tokens = completion.usage  # None where the server does not count
        self.usage.add(
            1,
            getattr(tokens, "prompt_tokens", None) or 0,
            getattr(tokens, "completion_tokens", None) or 0,
        )
        # JSON may hold half a character, which no file and no tokenizer takes.
        return str(answer).encode(errors="replace").decode()


def _messages(request: ChatRequest) -> Any:
    return [
        {
            "role": message.role,
            "content": [
                *(
                    {"type": "image_url", "image_url": {"url": data_url(image)}}
                    for image in message.images
                ),
                {"type": "text", "text": message.text},
            ],
        }
        for message in request.messages
    ]


def data_url(image: Image.Image) -> str:
    """The picture as a JPEG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
