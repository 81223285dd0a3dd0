"""Tokenizers that are published as tokenizer.model alone."""

import struct

import pytest

from llmdet.errors import ConfigError
from llmdet.prompts.sentencepiece import read_pieces
from llmdet.prompts.tokenizers import load_tokenizer


def field(number, value):
    """A field of a message, as protocol buffers have it."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3 | 2, len(value)]) + value


def model(kind, *pieces):
    made = b"".join(
        field(1, field(1, text.encode()) + field(2, -float(number)) + field(3, type_))
        for number, (text, type_) in enumerate(pieces)
    )
    return made + field(2, field(3, kind))


PIECES = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("b", 1), ("ab", 1)]
PIECES += [("▁ab", 1), ("<img>", 4)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model(2, *PIECES))
    (tmp_path / "added_tokens.json").write_text('{"[SEG]": 9}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    return tmp_path


def test_a_file_without_a_fast_version_is_read(folder):
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer("ab abb[SEG]ab", add_special_tokens=False).tokens() == [
        *("▁ab", "▁ab", "b", "[SEG]", "ab")
    ]
    assert tokenizer.convert_tokens_to_ids(["[SEG]", "<img>", "</s>"]) == [9, 8, 2]
    assert tokenizer.name_or_path == str(folder)
    assert tokenizer("<img>").tokens()[-1] == "<img>"


def test_it_is_read_as_it_was_saved(folder, tmp_path):
    first = load_tokenizer(str(folder))
    first.save_pretrained(tmp_path / "saved")
    text = "abba <img> ab [SEG]"
    assert load_tokenizer(str(tmp_path / "saved"))(text).input_ids == first(text).input_ids


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (model(1, *PIECES), "no byte-pair encoding"),
        (model(2, *PIECES)[:-2], "damaged"),
        (b"\xff\xff", "damaged"),
    ],
)
def test_what_is_no_such_file_is_said(folder, content, what):
    (folder / "tokenizer.model").write_bytes(content)
    with pytest.raises(ConfigError, match=what):
        read_pieces(folder / "tokenizer.model")


def test_recorded_pieces_are_all_there(root):
    pieces = read_pieces(root / "tests/golden/regions/text_pipeline/tokenizer/tokenizer.model")
    assert len(pieces.texts) == 420
    assert pieces.texts[:3] == ("<unk>", "<s>", "</s>")
