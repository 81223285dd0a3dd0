"""From class names, sentences and spans to text features (prompt, token map, BERT)."""

from llmdet.models.text.bert import BertModel
from llmdet.models.text.prompt import Prompt, build_prompts, token_map

__all__ = ["BertModel", "Prompt", "build_prompts", "token_map"]
