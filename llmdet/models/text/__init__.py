"""The text encoder: from prompts to one feature a token."""

from llmdet.models.text.bert import BertModel

__all__ = ["BertModel"]
