"""A BERT small enough for tests and the quickstart, made on the spot, without a download."""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path

_COMMON_WORDS = (
    "a an the one two three red green blue yellow black white orange purple pink brown grey "
    "circle square triangle star ring cross diamond hexagon small large left right above below "
    "of on in at to and with next under over between beside person dog cat car bus tree ball "
    "grass bench table chair bottle cup apple apples bicycle traffic light fire hydrant stop sign "
    "wine glass many there are is running sitting describe image region detail phrase"
)
#: Whole words of the default vocabulary; every other word is spelled in characters.
WORDS = tuple(_COMMON_WORDS.split())
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_bert(
    folder: str | Path,
    vocabulary: Iterable[str] = WORDS,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    seed: int = 0,
) -> str:
    """Write a BERT with random weights and its WordPiece tokenizer to ``folder``.

    Args:
        folder: made where it is missing; loads as ``language_model.name``.
        vocabulary: words that become one token each, lower case. Their characters, ASCII letters,
            digits and punctuation are tokens too, so that no other word of these is unknown.
        hidden_size: width of the embeddings, a multiple of ``heads``.
        layers: number of transformer layers.
        heads: attention heads of each.
        dropout: of hidden states and attention, active in training only.
        seed: of the weights; equal arguments write equal files and leave the global random state
            as it was.

    Returns:
        ``folder`` as a string.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = wordpiece_vocabulary(vocabulary)
    tokenizer = BertTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, model_max_length=512
    )
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokens.index("[PAD]"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def wordpiece_vocabulary(words: Iterable[str]) -> list[str]:
    """Tokens in the order of their ids: special ones, characters, continuations, whole words."""
    words = list(dict.fromkeys(word.lower() for word in words))
    ascii_characters = string.ascii_lowercase + string.digits + string.punctuation
    characters = sorted({*ascii_characters, *"".join(words)})
    continuations = [f"##{character}" for character in characters]
    return list(dict.fromkeys((*SPECIAL_TOKENS, *characters, *continuations, *words)))
