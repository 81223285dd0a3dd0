"""A model of transformers in this process, with or without eyes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmdet.chat.messages import ChatRequest, Pace, Usage
from llmdet.errors import ConfigError


class LocalChat:
    """Any image-text-to-text or causal language model; requests are answered in one batch.

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
        self.processor, loaded, self.sees = _load(model)
        if not getattr(self.processor, "chat_template", None):
            raise ConfigError(f"{model}: the processor has no chat template; use an instruct model")
        self.name = model
        self.model: Any = loaded.to(device).eval()
        self.max_new_tokens = max_new_tokens
        self.pace = Pace(batch_size)
        self.usage = Usage()
        self.tokenizer: Any = self.processor.tokenizer if self.sees else self.processor
        # Answers are appended to the end of each row: padding must be in front.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def identity(self) -> dict[str, Any]:
        """Model and length of an answer; for a folder also a hash of its files' names and sizes."""
        return {**identity_of(self.name), "max_new_tokens": self.max_new_tokens}

    def answer(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Answer a batch; what a request gets does not depend on the others.

        Raises:
            ConfigError: a request shows a picture to a model that reads text alone.
        """
        import torch
        from transformers import LogitsProcessorList

        from llmdet.chat.sampling import SeededSampling

        inputs = self._inputs(requests)
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
        prompt, padding = inputs["attention_mask"], self.tokenizer.pad_token_id
        self.usage.add(len(requests), int(prompt.sum()), int((new_ids != padding).sum()))
        return self.processor.batch_decode(new_ids, skip_special_tokens=True)

    def _inputs(self, requests: Sequence[ChatRequest]) -> Any:
        """Token ids, their mask and, where there are any, pixels of a batch."""
        if self.sees:
            return self.processor.apply_chat_template(
                [_conversation(request) for request in requests],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            ).to(self.model.device, self.model.dtype)
        messages = [message for request in requests for message in request.messages]
        if any(message.images for message in messages):
            raise ConfigError(
                f"{self.name} reads text alone and was shown a picture; give that role a "
                "vision-language model."
            )
        return self.tokenizer.apply_chat_template(
            [[{"role": m.role, "content": m.text} for m in r.messages] for r in requests],
            add_generation_prompt=True,
            tokenize=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)


def _load(name: str) -> tuple[Any, Any, bool]:
    """Processor or tokenizer, model, and whether it sees.

    Raises:
        ConfigError: it is neither, or is not there.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        sees = type(config) in AutoModelForImageTextToText._model_mapping
        kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        # A tokenizer where that is all.
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model = kind.from_pretrained(name, dtype="auto", trust_remote_code=False)
        return processor, model, sees
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no language model could be loaded: {error}") from None


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
