"""Vision-language models that answer questions about pictures: local, or behind an endpoint."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from llmdet.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_RETRIES = 5
_TIMEOUT_SECONDS = 300.0
_JPEG_QUALITY = 92
#: A question that is asked again needs another answer than the most likely one.
_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Question:
    """A picture and what is asked about it."""

    image: Image.Image  # RGB
    prompt: str
    attempt: int = 0  # 0 asks for the most likely answer, later ones sample


class Captioner(Protocol):
    """What every backend offers."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """One answer for each question, in their order."""


class TransformersCaptioner:
    """Any image-text-to-text model of transformers, run in this process.

    Args:
        model: A folder, or a name in the hub's cache.
        device: For example ``"cuda"`` or ``"cpu"``.
        max_new_tokens: The longest answer.

    Raises:
        ConfigError: The model or its processor cannot be loaded, or has no chat template.
    """

    def __init__(self, model: str, device: str, max_new_tokens: int = 512) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(model)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{model}: no vision-language model could be loaded: {error}"
            ) from None
        if not getattr(self.processor, "chat_template", None):
            raise ConfigError(f"{model}: the processor has no chat template; use an instruct model")
        self.model: Any = loaded.to(device).eval()
        self.max_new_tokens = max_new_tokens
        # Answers are appended to the end of each row: padding must be in front.
        self.processor.tokenizer.padding_side = "left"
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answer a batch; first attempts are greedy, later ones sample."""
        answers: dict[int, str] = {}
        for sampled in (False, True):
            chosen = [
                i for i, question in enumerate(questions) if (question.attempt > 0) == sampled
            ]
            if chosen:
                texts = self._generate([questions[i] for i in chosen], sampled=sampled)
                answers.update(zip(chosen, texts, strict=True))
        return [answers[i] for i in range(len(questions))]

    def _generate(self, questions: Sequence[Question], *, sampled: bool) -> list[str]:
        import torch

        conversations = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": question.image},
                        {"type": "text", "text": question.prompt},
                    ],
                }
            ]
            for question in questions
        ]
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, self.model.dtype)
        how = {"do_sample": True, "temperature": _TEMPERATURE} if sampled else {"do_sample": False}
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, **how)
        new_ids = ids[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(new_ids, skip_special_tokens=True)


class OpenAICaptioner:
    """A model behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, Ollama ...).

    Questions of a batch are asked at the same time. Busy or failing servers are tried again, with
    growing pauses. The key, where the server wants one, comes from ``OPENAI_API_KEY``.

    Args:
        url: The base of the interface, for example ``http://localhost:8000/v1``.
        model: The name by which the server knows the model.
        max_new_tokens: The longest answer.
        pause: Seconds before the first repetition of a failed request; each further one doubles.

    Raises:
        ConfigError: The url is no http address, or the server refuses the request.
        DataError: The server cannot be reached or answers nonsense.
    """

    def __init__(self, url: str, model: str, max_new_tokens: int = 512, pause: float = 1.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url!r} must begin with http:// or https://")
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.pause = pause

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Ask all questions at the same time."""
        with ThreadPoolExecutor(max_workers=max(len(questions), 1)) as pool:
            return list(pool.map(self._ask, questions))

    def _ask(self, question: Question) -> str:
        body = json.dumps(
            {
                "model": self.model,
                "max_tokens": self.max_new_tokens,
                "temperature": _TEMPERATURE if question.attempt else 0.0,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": data_url(question.image)}},
                            {"type": "text", "text": question.prompt},
                        ],
                    }
                ],
            }
        ).encode()
        response = self._send(body)
        try:
            answer = json.loads(response)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise DataError(f"{self.url} answered {response[:200]!r}, not a completion") from None
        return answer or ""

    def _send(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data=body, headers=headers)
        problem = ""
        for attempt in range(_RETRIES):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}: {error.read()[:300].decode(errors='replace')}"
                if error.code not in _RETRIED_STATUS:
                    raise ConfigError(f"{self.url} refused the request, {problem}") from None
            except OSError as error:
                problem = str(error)
            logger.warning("%s: %s; trying again", self.url, problem)
        raise DataError(f"{self.url} gave no answer in {_RETRIES} attempts: {problem}")


def data_url(image: Image.Image) -> str:
    """The picture as a JPEG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
