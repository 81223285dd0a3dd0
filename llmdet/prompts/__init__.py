"""From class names, sentences, spans and expressions to texts and tokens; pure text, no torch."""

from llmdet.prompts.ensembles import ensemble
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import (
    AnyObject,
    Classes,
    Expression,
    Expressions,
    Prompt,
    PromptText,
    Sentence,
    Spans,
    TokenizedPrompt,
)
from llmdet.prompts.writing import PromptOptions, write_prompt

__all__ = [
    "AnyObject",
    "Classes",
    "Expression",
    "Expressions",
    "Prompt",
    "PromptOptions",
    "PromptText",
    "PromptTokenizer",
    "Sentence",
    "Spans",
    "TokenizedPrompt",
    "ensemble",
    "load_tokenizer",
    "parse_prompt",
    "write_prompt",
]
