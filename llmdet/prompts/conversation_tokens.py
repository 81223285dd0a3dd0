"""Conversations as token ids, labels and slots: what a language model reads and learns of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, pairwise, zip_longest
from typing import Any

import numpy as np

from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import (
    IGNORE_INDEX,
    Conversation,
    ConversationSettings,
    Slot,
    TokenizedConversation,
    Turn,
    split_at_marks,
)

#: Tokens of chat templates that keep themselves as labels wherever they stand, as in the original
#: training; those that are no single token of a tokenizer are skipped.
_TEMPLATE_TOKENS = ("\n", "<|im_start|>", "<|im_end|>")
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VICUNA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}ASSISTANT: {{ message.content }}{{ eos_token }}"
    "{% elif message.role == 'user' %}USER: {{ message.content }} "
    "{% else %}{{ message.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
#: Chat templates by name, for tokenizers that have none of their own.
TEMPLATES = {"chatml": _CHATML, "vicuna": _VICUNA}


class ConversationTokenizer:
    """Turns conversations into token ids, labels and slots.

    Args:
        tokenizer: of the language model, with the added tokens; its chat template is used,
            ChatML where it has none but knows ChatML's tokens.
        settings: what workers and model agree on.

    Raises:
        ConfigError: no chat template can be used with this tokenizer.
    """

    def __init__(self, tokenizer: Any, settings: ConversationSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.lengths = dict(settings.slots)
        given = settings.template
        self.template = TEMPLATES.get(given, given) if given else _chat_template(tokenizer)
        ids = [tokenizer(token, add_special_tokens=False).input_ids for token in _TEMPLATE_TOKENS]
        self.kept_labels = [found[0] for found in ids if len(found) == 1]
        self.pad_id = pad_id(tokenizer)
        # Questions and the template around them are the same from sample to sample.
        self._encode = lru_cache(maxsize=1024)(self._encode_text)
        # Of tokenizers like Llama's, which put a space in front of whatever they encode.
        first = tokenizer.convert_ids_to_tokens(tokenizer("x", add_special_tokens=False).input_ids)
        self._begins_with_space = first[0].startswith("\u2581")

    def reads(self, conversation: Conversation) -> bool:
        """Whether its marks are of exactly the kinds that these settings name, or of some."""
        kinds = set(self.lengths)
        return (
            conversation.kinds <= kinds if self.settings.any_kinds else conversation.kinds == kinds
        )

    def tokens_of(self, conversation: Conversation) -> TokenizedConversation:
        """What a worker made of it, or what is made of it here.

        Raises:
            ConfigError: the worker made it with other settings.
        """
        tokens = conversation.tokens
        if tokens is None:
            return self(conversation)
        if tokens.settings != self.settings:
            different = [
                f"{name} is {theirs!r} there and {here!r} here"
                for name, theirs in vars(tokens.settings).items()
                if theirs != (here := getattr(self.settings, name))
            ]
            raise ConfigError(
                "TokenizeConversations in the pipeline and the model make different tokens: "
                f"{'; '.join(different)}. Leave its settings out, so that it takes the model's"
            )
        return tokens

    def __call__(self, conversation: Conversation) -> TokenizedConversation:
        """Tokenise; a conversation that does not end with the assistant is opened for its answer.

        Every learned turn is supervised as a whole, its header included unless the settings say
        ``answers_only``. What exceeds ``max_length`` is cut, never inside a slot; questions are
        not cut.

        Raises:
            ConfigError: ``max_length`` leaves no room for the first learned turn, or the chat
                template cannot write these turns.
            DataError: a mark of a kind that has no slots here.
        """
        turns = self._with_system(conversation.turns)
        texts = [self._surrounded(text) for text in self._render_turns(turns)]
        pieces_of_turns = split_at_marks(texts)
        self._check_kinds(pieces_of_turns)
        parts: list[tuple[str | Slot, bool, bool]] = []  # piece, whether it, and its turn, count
        for number, (pieces, turn) in enumerate(zip_longest(pieces_of_turns, turns)):
            learned = turn is not None and turn.learned
            found = self._parts(pieces, turns[:number], learned)
            parts += [(piece, counts, learned) for piece, counts in found if piece != ""]
        written = self._without_blanks([piece for piece, _, _ in parts])
        ids: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        slots: list[Slot] = []
        length, learns = 0, False
        for piece, (_, counts, learned) in zip(written, parts, strict=True):
            if learned and not learns:
                self._check_room(length)
            learns |= learned
            if isinstance(piece, Slot):
                slots.append(replace(piece, start=length, length=self.lengths[piece.kind]))
                tokens = np.full(slots[-1].length, self.pad_id)
                labels.append(np.full_like(tokens, IGNORE_INDEX))
            else:
                tokens = self._encode(piece)
                labels.append(tokens if counts else self._template_labels(tokens))
            ids.append(tokens)
            length += len(tokens)
        return self._finish(np.concatenate(ids), np.concatenate(labels), slots, learns)

    def _surrounded(self, text: str) -> str:
        """A text with what the settings put around its marks."""
        for kind, before, behind in self.settings.around:
            left, right = (each.replace("\\", r"\\") for each in (before, behind))
            text = re.sub(rf"(<{kind}(?::\d+)?>)", rf"{left}\1{right}", text)
        return text

    def _without_blanks(self, pieces: Sequence[str | Slot]) -> list[str | Slot]:
        """The pieces without blanks that the tokenizer itself puts in front of the next one."""
        written: list[str | Slot] = []
        for before, piece, behind in zip(
            [None, *pieces], pieces, [*pieces[1:], None], strict=False
        ):
            if isinstance(piece, str):
                if self._begins_with_space and isinstance(behind, str):
                    piece = piece.removesuffix(" ")
                if self.settings.legacy_blanks and _is_region(before):
                    piece = piece.lstrip()
                if self.settings.legacy_blanks and _is_region(behind):
                    piece = piece.rstrip()
            written.append(piece)
        return written

    def _parts(
        self, pieces: Sequence[str | Slot], before: Sequence[Turn], learned: bool
    ) -> list[tuple[str | Slot, bool]]:
        """Pieces of a turn, and whether each is learned."""
        first = pieces[0]
        if not (learned and self.settings.answers_only and isinstance(first, str)):
            return [(piece, learned) for piece in pieces]
        messages = [{"role": turn.role, "content": turn.text} for turn in before]
        opened = self._render(messages, add_generation_prompt=True)
        header = opened[len(self._render(messages)) :]
        if not first.startswith(header):
            raise ConfigError(
                f"the chat template opens an answer with {header!r} but writes it as "
                f"{first[: len(header)]!r}; answers_only=False learns them as a whole"
            )
        answer = first.removeprefix(header)
        if self._begins_with_space and answer.startswith(" "):
            answer = answer[1:]
        return [(header, False), *((piece, True) for piece in (answer, *pieces[1:]))]

    def _with_system(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        write = self.settings.write
        turns = tuple(replace(t, text=write(t.text)) if t.learned else t for t in turns)
        if self.settings.system is None or turns[0].role == "system":
            return turns
        return (Turn("system", self.settings.system), *turns)

    def _render_turns(self, turns: Sequence[Turn]) -> list[str]:
        """The text of each turn by itself, and the assistant's header where it is to answer."""
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        texts = [self._render(messages[: end + 1]) for end in range(len(messages))]
        if turns[-1].role != "assistant":
            texts.append(self._render(messages, add_generation_prompt=True))
        separate = texts[:1]
        for shorter, longer in pairwise(texts):
            if not longer.startswith(shorter):
                raise ConfigError(
                    "the tokenizer's chat template rewrites earlier turns when a turn is added; "
                    "set another tokenizer.chat_template"
                )
            separate.append(longer[len(shorter) :])
        return separate

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

    def _encode_text(self, text: str) -> np.ndarray:
        begin = self.tokenizer.bos_token or ""
        if self.settings.legacy_blanks:
            pieces = self._between_added_tokens(text)
        elif begin and self._begins_with_space and text.startswith(begin):
            pieces = [begin, text.removeprefix(begin)]  # else there is no blank behind it
        else:
            pieces = [text]
        found = [self.tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces]
        return np.array(list(chain.from_iterable(found)), dtype=np.int64)

    def _between_added_tokens(self, text: str) -> list[str]:
        """Added tokens and the pieces between them, without blanks beside those that are ours."""
        named = set(map(str, self.tokenizer.special_tokens_map.values()))
        added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, added))})", text)
        for place in range(1, len(pieces), 2):  # every other one is an added token
            if pieces[place] not in named:
                pieces[place - 1] = pieces[place - 1].rstrip()
                pieces[place + 1] = pieces[place + 1].lstrip()
        return [piece for piece in pieces if piece]

    def _template_labels(self, ids: np.ndarray) -> np.ndarray:
        if self.settings.answers_only:
            return np.full_like(ids, IGNORE_INDEX)
        return np.where(np.isin(ids, self.kept_labels), ids, IGNORE_INDEX)

    def _check_kinds(self, pieces_of_turns: list[list[str | Slot]]) -> None:
        for piece in chain.from_iterable(pieces_of_turns):
            if isinstance(piece, Slot) and piece.kind not in self.lengths:
                raise DataError(
                    f"a conversation has the mark <{piece.kind}>, which nothing fills here; known: "
                    f"{', '.join(f'<{kind}>' for kind in self.lengths) or 'none'}"
                )

    def _check_room(self, length: int) -> None:
        if length >= self.settings.max_length:
            raise ConfigError(
                f"max_length={self.settings.max_length} cannot hold the prompt with its visual "
                f"tokens, {length} tokens, and an answer; raise max_length or use a smaller grid"
            )

    def _finish(
        self, ids: np.ndarray, labels: np.ndarray, slots: list[Slot], learns: bool
    ) -> TokenizedConversation:
        if not learns:
            labels = np.full_like(ids, IGNORE_INDEX)
            return TokenizedConversation(ids, labels, tuple(slots), self.settings)
        end = self.settings.max_length
        for slot in slots:
            if slot.start < end < slot.start + slot.length:
                end = slot.start
        kept = tuple(slot for slot in slots if slot.start < end)
        cut = len(ids) > end
        return TokenizedConversation(ids[:end], labels[:end], kept, self.settings, cut)


def count_learned(tokens: TokenizedConversation) -> int:
    """Supervised tokens: all but the first can be, which nothing predicts."""
    return int((tokens.labels[1:] != IGNORE_INDEX).sum())


def _is_region(piece: str | Slot | None) -> bool:
    return isinstance(piece, Slot) and piece.kind == "region"


def pad_id(tokenizer: Any) -> int:
    """Id that fills rows up; the end of turn where the tokenizer has no padding."""
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else pad


def _chat_template(tokenizer: Any) -> str:
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.get_vocab()):
        return _CHATML
    raise ConfigError(
        f"the tokenizer '{tokenizer.name_or_path}' has no chat template; set chat_template in its "
        f"tokenizer_config.json, or name one of ours where a config can: {', '.join(TEMPLATES)}"
    )
