"""Embeddings of phrases by a text encoder, for recall of grounded captions."""

from collections.abc import Sequence

from llmdet.prompts.tokenizers import load_tokenizer, not_found
from llmdet.utils.hub import hub_options

_BATCH = 64


def encode_phrases(phrases: Sequence[str], encoder: str) -> dict[str, list[float]]:
    """The mean of an encoder's last states over all tokens of each phrase, [CLS] and [SEP] too.

    Args:
        phrases: any texts.
        encoder: folder or name of the hub of a text encoder of transformers; GLaMM's program
            has bert-base-uncased.

    Raises:
        ConfigError: the encoder cannot be loaded.

    Source: groundingLMM's evaluation of grounded conversations.
    """
    import torch
    from transformers import AutoModel

    tokenizer = load_tokenizer(encoder, role="text_encoder")
    try:
        model = AutoModel.from_pretrained(encoder, **hub_options(encoder)).eval()
    except (OSError, ValueError) as error:
        raise not_found(encoder, error, "text_encoder") from error
    found: dict[str, list[float]] = {}
    for start in range(0, len(phrases), _BATCH):
        part = list(phrases[start : start + _BATCH])
        batch = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch).last_hidden_state  # [n, T, C]
        there = batch["attention_mask"][:, :, None].to(states.dtype)
        means = (states * there).sum(1) / there.sum(1)
        found |= dict(zip(part, means.tolist(), strict=True))
    return found
