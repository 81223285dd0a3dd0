"""A vision-language model of transformers in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmdet.chat.messages import ChatRequest, Pace, Usage
from llmdet.errors import ConfigError


class LocalChat:
    """Any image-text-to-text model of transformers; requests are answered in one batch.

    Args:
        model: a folder, or a name in the hub's cache.
        device: for example ``"cuda"`` or ``"cpu"``.
        max_new_tokens: the longest answer.
        batch_size: requests that pass through the model together.

    Raises:
        ConfigError: the model or its processor cannot be loaded, or has no chat template.
    """

    def __init__(
        self, model: str, device: str, max_new_tokens: int = 512, *, batch_size: int = 8
    ) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                model, dtype="auto", trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{model}: no vision-language model could be loaded: {error}"
            ) from None
        if not getattr(self.processor, "chat_template", None):
            raise ConfigError(f"{model}: the processor has no chat template; use an instruct model")
        self.name = model
        self.model: Any = loaded.to(device).eval()
        self.max_new_tokens = max_new_tokens
        self.pace = Pace(batch_size)
        self.usage = Usage()
        # Answers are appended to the end of each row: padding must be in front.
        self.processor.tokenizer.padding_side = "left"
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token

    @property
    def identity(self) -> dict[str, Any]:
        """Model and length of an answer; for a folder also a hash of its files' names and sizes."""
        return {**identity_of(self.name), "max_new_tokens": self.max_new_tokens}

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Answer a batch; what a request gets does not depend on the others."""
        import torch
        from transformers import LogitsProcessorList

        from llmdet.chat.sampling import SeededSampling

        inputs = self.processor.apply_chat_template(
            [_conversation(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, self.model.dtype)
        sampling = LogitsProcessorList()
        if any(request.temperature for request in requests):
            sampling.append(SeededSampling(requests, self.model.device))
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                logits_processor=sampling,
            )
        new_ids = ids[:, inputs["input_ids"].shape[1] :]
        prompt, padding = inputs["attention_mask"], self.processor.tokenizer.pad_token_id
        self.usage.add(len(requests), int(prompt.sum()), int((new_ids != padding).sum()))
        return self.processor.batch_decode(new_ids, skip_special_tokens=True)


def _conversation(request: ChatRequest) -> list[dict[str, Any]]:
    return [
        {
            "role": message.role,
            "content": [
                *({"type": "image", "image": image} for image in message.images),
                {"type": "text", "text": message.text},
            ],
        }
        for message in request.messages
    ]


def identity_of(model: str) -> dict[str, Any]:
    """A model of transformers: its name, and of a folder a hash of its files' names and sizes."""
    if not Path(model).is_dir():
        return {"model": model}
    files = sorted((file.name, file.stat().st_size) for file in Path(model).iterdir())
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    return {"model": model, "files of the model": digest}
