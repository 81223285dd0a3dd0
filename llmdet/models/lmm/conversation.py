"""From prompts and answers to token ids, labels and the places of visual tokens.

Built on the host, so that which positions are supervised is known without asking the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import ConfigError, DataError

IGNORE_INDEX = -100
IMAGE_PLACEHOLDER = "<image>"

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class DialogueBatch:
    """R conversations of one image or region each, padded to T tokens."""

    input_ids: Tensor  # [R, T] int64, the pad id at visual positions and padding
    labels: Tensor  # [R, T] int64, IGNORE_INDEX where nothing is asked
    attention_mask: Tensor  # [R, T] bool, True at tokens
    position_ids: Tensor  # [R, T] int64, counted from the first token
    visual: Tensor  # [R, V] int64, positions of the visual tokens
    supervised: Tensor  # [n] int64 into R * T: positions whose next token has a label
    targets: Tensor  # [n] int64, these labels

    def to(self, device: torch.device | str) -> DialogueBatch:
        """Copy on ``device``, without waiting for it."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


class ConversationBuilder:
    """Writes the conversations that a captioner is trained and asked with.

    Args:
        tokenizer: of the language model; its chat template is used, ChatML where it has none
            but knows ChatML's tokens.
        max_length: most tokens of a conversation, visual tokens included.
        system: content of the system turn; None for templates without one.
        template_tokens: tokens of the template that keep themselves as labels wherever they
            stand, as in the original training; those that are no single token are skipped.

    Raises:
        ConfigError: no chat template can be used with this tokenizer.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        *,
        system: str | None = "You are a helpful assistant.",
        template_tokens: Sequence[str] = ("\n", "<|im_start|>", "<|im_end|>"),
    ) -> None:
        self.tokenizer, self.max_length, self.system = tokenizer, max_length, system
        self.template = _chat_template(tokenizer)
        ids = [tokenizer(token, add_special_tokens=False).input_ids for token in template_tokens]
        self.kept_labels = frozenset(found[0] for found in ids if len(found) == 1)
        self.pad_id = tokenizer.pad_token_id
        if self.pad_id is None:
            self.pad_id = tokenizer.eos_token_id
        self._prompts: dict[str, tuple[list[int], list[int]]] = {}

    def training_batch(
        self, prompts: Sequence[str], answers: Sequence[str], num_visual: int
    ) -> DialogueBatch:
        """Conversations with the assistant's turn as the thing to learn, padded on the right.

        Args:
            prompts: user texts; ``<image>`` marks the visual tokens, which otherwise stand on
                a line of their own in front.
            answers: what the assistant says.
            num_visual: V, visual tokens of each conversation.

        Raises:
            ConfigError: ``max_length`` leaves no room for the visual tokens and a word.
        """
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            before, after = self._prompt_ids(prompt)
            ids = [*before, *[self.pad_id] * num_visual, *after]
            labels = [self._label(token) for token in before]
            labels += [IGNORE_INDEX] * num_visual + [self._label(token) for token in after]
            self._check_room(len(ids))
            said = self._answer_ids(prompt, answer)
            start = len(before)
            rows.append(
                (
                    (ids + said)[: self.max_length],
                    (labels + said)[: self.max_length],
                    range(start, start + num_visual),
                )
            )
        return self._collate(rows, left=False)

    def prompt_batch(self, prompts: Sequence[str], num_visual: int) -> DialogueBatch:
        """Conversations up to where the assistant begins to speak, padded on the left."""
        header = self._encode(self._turns("", None)[-1])
        rows = []
        for prompt in prompts:
            before, after = self._prompt_ids(prompt)
            ids = [*before, *[self.pad_id] * num_visual, *after, *header]
            start = len(before)
            labels = [IGNORE_INDEX] * len(ids)
            rows.append((ids, labels, range(start, start + num_visual)))
        return self._collate(rows, left=True)

    def _label(self, token: int) -> int:
        return token if token in self.kept_labels else IGNORE_INDEX

    def _check_room(self, length: int) -> None:
        if length >= self.max_length:
            raise ConfigError(
                f"max_length={self.max_length} cannot hold the prompt with its visual tokens, "
                f"{length} tokens, and an answer; raise max_length or use a smaller grid"
            )

    def _prompt_ids(self, prompt: str) -> tuple[list[int], list[int]]:
        """System and user turn in front of and behind the visual tokens."""
        if prompt not in self._prompts:
            marked = prompt
            if IMAGE_PLACEHOLDER not in prompt:
                marked = f"{IMAGE_PLACEHOLDER}\n{prompt}"
            *system, user, _ = self._turns(marked, None)
            parts = user.split(IMAGE_PLACEHOLDER)
            if len(parts) != 2:
                raise DataError(
                    f"the prompt {prompt!r} has {len(parts) - 1} {IMAGE_PLACEHOLDER} marks; one "
                    "is the most"
                )
            before = [token for turn in system for token in self._encode(turn)]
            self._prompts[prompt] = (before + self._encode(parts[0]), self._encode(parts[1]))
        return self._prompts[prompt]

    def _answer_ids(self, prompt: str, answer: str) -> list[int]:
        return self._encode(self._turns(prompt, answer)[-1])

    def _turns(self, prompt: str, answer: str | None) -> list[str]:
        """The text of each turn by itself; the last is the assistant's, or only its header."""
        messages = [{"role": "user", "content": prompt}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        texts = [self._render(messages[: end + 1]) for end in range(len(messages))]
        if answer is None:
            texts.append(self._render(messages, add_generation_prompt=True))
        else:
            texts.append(self._render([*messages, {"role": "assistant", "content": answer}]))
        turns = texts[:1]
        for shorter, longer in pairwise(texts):
            if not longer.startswith(shorter):
                raise ConfigError(
                    "the tokenizer's chat template rewrites earlier turns when a turn is added; "
                    "set another tokenizer.chat_template"
                )
            turns.append(longer[len(shorter) :])
        return turns

    def _render(self, messages: list[dict[str, str]], **options: Any) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, **options
            )
        except TemplateError as error:
            raise ConfigError(
                f"the tokenizer's chat template refuses a conversation of "
                f"{[message['role'] for message in messages]}: {error}; system=None leaves the "
                "system turn out"
            ) from error

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _collate(
        self, rows: Sequence[tuple[list[int], list[int], range]], *, left: bool
    ) -> DialogueBatch:
        length = max(len(ids) for ids, _, _ in rows)
        ids, labels, mask, positions, visual = [], [], [], [], []
        for row_ids, row_labels, places in rows:
            gap = length - len(row_ids)
            front, back = (gap, 0) if left else (0, gap)
            ids.append([self.pad_id] * front + row_ids + [self.pad_id] * back)
            labels.append([IGNORE_INDEX] * front + row_labels + [IGNORE_INDEX] * back)
            mask.append([False] * front + [True] * len(row_ids) + [False] * back)
            positions.append([max(place - front, 0) for place in range(length)])
            visual.append([place + front for place in places])
        all_labels = torch.tensor(labels)
        shifted = all_labels[:, 1:]
        row, column = (shifted != IGNORE_INDEX).nonzero(as_tuple=True)
        return DialogueBatch(
            input_ids=torch.tensor(ids),
            labels=all_labels,
            attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(positions),
            visual=torch.tensor(visual, dtype=torch.int64).reshape(len(rows), -1),
            supervised=row * length + column,
            targets=shifted[row, column],
        )


def _chat_template(tokenizer: Any) -> str:
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.get_vocab()):
        return _CHATML
    raise ConfigError(
        f"the tokenizer '{tokenizer.name_or_path}' has no chat template; set chat_template in its "
        "tokenizer_config.json"
    )
