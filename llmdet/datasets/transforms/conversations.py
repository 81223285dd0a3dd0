"""Conversations as token ids, made in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmcv.transforms import BaseTransform

from llmdet.datasets.ledger import SharedLedger
from llmdet.prompts.conversation import Conversation, ConversationSettings
from llmdet.prompts.conversation_tokens import ConversationTokenizer
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import TRANSFORMS

CUT = "conversation cut at max_length"
UNREAD = "conversation whose marks no captioner reads"


@TRANSFORMS.register_module()
class TokenizeConversations(BaseTransform):
    """Tokenises a sample's conversations as the model reads them.

    Required and changed keys: conversations (tuple of ``Conversation``), each of which gets its
    tokens. A conversation whose marks no settings read stays without; such ones, and those that
    are longer than the settings' `max_length`, are counted in `dropped`.

    Args:
        settings: how; None, as in configs, for those of the model that the runner trains. A
            program that builds no runner may leave them out: then the model tokenises.
    """

    def __init__(self, settings: Sequence[ConversationSettings] | None = None) -> None:
        self.settings = tuple(settings or ())
        self.dropped = SharedLedger(CUT, UNREAD)
        self._tokenizers: list[ConversationTokenizer] | None = None

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys."""
        if self._tokenizers is None:  # here, so that a spawned worker need not be sent them
            self._tokenizers = [_build(settings) for settings in self.settings]
        conversations = results.get("conversations") or ()
        if self._tokenizers:
            conversations = [self._tokenize(each, self._tokenizers) for each in conversations]
        results["conversations"] = tuple(conversations)
        return results

    def _tokenize(
        self, conversation: Conversation, tokenizers: Sequence[ConversationTokenizer]
    ) -> Conversation:
        for tokenizer in tokenizers:
            if tokenizer.reads(conversation):
                tokens = tokenizer(conversation)
                if tokens.cut:
                    self.dropped.note(CUT)
                return replace(conversation, tokens=tokens)
        self.dropped.note(UNREAD)
        return conversation


def _build(settings: ConversationSettings) -> ConversationTokenizer:
    tokenizer = load_tokenizer(settings.tokenizer, role="lmm.tokenizer")
    if settings.added_tokens:
        tokenizer.add_tokens(list(settings.added_tokens), special_tokens=True)
    return ConversationTokenizer(tokenizer, settings)
