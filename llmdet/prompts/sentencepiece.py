"""Tokenizers of LLaMA and Vicuna that are published as ``tokenizer.model`` alone.

transformers reads such files with another package; what it needs of them is a list of pieces.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdet.errors import ConfigError

MODEL, FAST = "tokenizer.model", "tokenizer.json"
#: Fields of the file's messages: pieces and trainer of the model, text and kind of a piece, and
#: the trainer's kind of model, which is byte-pair encoding if it is 2.
_PIECES, _TRAINER, _TEXT, _KIND, _MODEL_TYPE = 1, 2, 1, 3, 3
_PAIRS = 2
#: Kinds of piece that no text is split into: unknown, control, defined by the user.
_NOT_TEXT = {2: True, 3: True, 4: False}


@dataclass(frozen=True)
class Pieces:
    """What a ``tokenizer.model`` of byte-pair encoding knows; a piece's place is its id."""

    texts: tuple[str, ...]
    kinds: tuple[int, ...]


def read_pieces(path: Path) -> Pieces:
    """Read a ``tokenizer.model``.

    Raises:
        ConfigError: the file is damaged, or is of another kind than LLaMA's.
    """
    texts: list[str] = []
    kinds: list[int] = []
    model_type = 1
    try:
        for field, value in _fields(path.read_bytes()):
            if field == _PIECES:
                piece = dict(_fields(value))
                texts.append(piece[_TEXT].decode())
                kinds.append(piece.get(_KIND, 1))
            elif field == _TRAINER:
                model_type = dict(_fields(value)).get(_MODEL_TYPE, 1)
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise ConfigError(f"'{path}' is damaged, or no model of sentencepiece") from error
    if model_type != _PAIRS:
        raise ConfigError(
            f"'{path}' is no byte-pair encoding as LLaMA's is; save a {FAST} beside it with "
            "transformers and sentencepiece"
        )
    return Pieces(tuple(texts), tuple(kinds))


def load_llama_tokenizer(folder: Path, **options: Any) -> Any:
    """The tokenizer of a folder that has a ``tokenizer.model`` and no ``tokenizer.json``.

    Args:
        folder: also has tokenizer_config.json, and added_tokens.json where there are any.
        options: of transformers' ``from_pretrained``.
    """
    from tokenizers import AddedToken
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    pieces = read_pieces(folder / MODEL)
    vocabulary = {text: number for number, text in enumerate(pieces.texts)}
    merges = generate_merges(vocabulary)
    fast = LlamaTokenizer(vocab=vocabulary, merges=merges)
    for text, kind in zip(pieces.texts, pieces.kinds, strict=True):
        if kind in _NOT_TEXT:
            token = AddedToken(text, normalized=False, special=_NOT_TEXT[kind])
            fast.add_tokens([token], special_tokens=_NOT_TEXT[kind])
    with tempfile.TemporaryDirectory() as made:
        for file in folder.glob("*.json"):
            shutil.copy(file, made)
        fast.backend_tokenizer.save(str(Path(made) / FAST))
        config = Path(made) / "tokenizer_config.json"
        settings = json.loads(config.read_text()) if config.exists() else {}
        config.write_text(json.dumps({**settings, "tokenizer_class": "LlamaTokenizer"}))
        tokenizer = LlamaTokenizer.from_pretrained(made, **options)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a message: numbers, or bytes of what is within."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _number(message, place)
            yield field, value
        elif wire == 2:
            length, place = _number(message, place)
            if place + length > len(message):
                raise ValueError("a field reaches beyond the end")
            yield field, message[place : place + length]
            place += length
        else:
            kind = {1: "<d", 5: "<f"}[wire]
            yield field, struct.unpack_from(kind, message, place)[0]
            place += struct.calcsize(kind)


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
