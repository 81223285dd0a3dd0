"""Embeddings of phrases by a text encoder, and how alike two phrases are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from llmdet.errors import ConfigError
from llmdet.prompts.tokenizers import load_tokenizer, not_found
from llmdet.utils.files import read_json, require
from llmdet.utils.hub import hub_options

_BATCH = 64
Pooling = Literal["mean", "first"]
#: Of sentence-transformers' 1_Pooling/config.json -> how the states of a text become one vector.
_POOLING: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
}
_PARTS = ("Transformer", "Pooling", "Normalize")


def phrase_similarity(first: Sequence[str], second: Sequence[str], encoder: str) -> np.ndarray:
    """Cosine of the vectors of two phrases each.

    Args:
        first: N texts.
        second: N texts.
        encoder: folder of a sentence encoder as sentence-transformers publishes it, such as
            all-MiniLM-L6-v2, or any encoder of transformers, of whose states the mean is taken.

    Returns:
        [N] float64, from -1 to 1.

    Raises:
        ConfigError: the encoder cannot be loaded, or has parts that are not known here.
    """
    found = encode_phrases(list(dict.fromkeys([*first, *second])), encoder, pooling_of(encoder))
    pair = [np.array([found[text] for text in part], np.float64) for part in (first, second)]
    lengths = [np.linalg.norm(vectors, axis=1).clip(1e-12) for vectors in pair]
    return (pair[0] * pair[1]).sum(1) / (lengths[0] * lengths[1])


def pooling_of(encoder: str) -> Pooling:
    """How states become a vector: "first", or "mean", also where nothing says it.

    Raises:
        ConfigError: the encoder has parts that are not known here.
    """
    folder = Path(encoder)
    modules, settings = folder / "modules.json", folder / "1_Pooling" / "config.json"
    if modules.is_file():
        parts = [require(each, "type", str(modules)) for each in read_json(modules)]
        unknown = [part for part in parts if part.rpartition(".")[2] not in _PARTS]
        if unknown:
            raise ConfigError(f"{modules}: a part of type {unknown[0]} is not known here")
    if not settings.is_file():
        return "mean"
    chosen = [key for key, value in read_json(settings).items() if value is True and "mode" in key]
    if len(chosen) != 1 or chosen[0] not in _POOLING:
        raise ConfigError(f"{settings}: pooling {chosen} is not one of {', '.join(_POOLING)}")
    return _POOLING[chosen[0]]


def encode_phrases(
    phrases: Sequence[str], encoder: str, pooling: Pooling = "mean"
) -> dict[str, list[float]]:
    """The mean of an encoder's last states over all tokens of each phrase, [CLS] and [SEP] too.

    Args:
        phrases: any texts.
        encoder: folder or name of the hub of a text encoder of transformers; GLaMM's program
            has bert-base-uncased.
        pooling: "first" takes the state of the first token instead.

    Raises:
        ConfigError: the encoder cannot be loaded.

    Source: groundingLMM's evaluation of grounded conversations.
    """
    import torch
    from transformers import AutoModel

    tokenizer = load_tokenizer(encoder, role="text_encoder")
    try:
        model = AutoModel.from_pretrained(encoder, trust_remote_code=False, **hub_options(encoder))
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
        vectors = means if pooling == "mean" else states[:, 0]
        found |= dict(zip(part, vectors.tolist(), strict=True))
    return found
