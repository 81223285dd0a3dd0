import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.formats import json_stream
from llmdet.datasets.formats.json_stream import read_element, visit_document
from llmdet.errors import DataError

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.lists(st.one_of(st.dictionaries(st.text(), VALUES, max_size=3), st.integers(0, 999))),
    other=VALUES,
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_elements_are_those_of_the_whole_document_whatever_the_block_size(
    tmp_path: Path, images, other, block, indent, ascii_only
) -> None:
    document = {"other": other, "images": images, "é": [1]}
    path = tmp_path / "a.json"
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, "utf-8", "surrogatepass")
    visited = []
    old = json_stream._BLOCK_BYTES
    json_stream._BLOCK_BYTES = block
    try:
        rest = visit_document(
            path,
            ("images",),
            lambda key, _, start, length: visited.append(
                (key, json.loads(path.read_bytes()[start : start + length]))
            ),
        )
    finally:
        json_stream._BLOCK_BYTES = old
    assert visited == [("images", image) for image in images]
    assert rest["other"] == other


def test_an_element_is_read_again_from_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"images": [{"name": "naïve"}, {"name": "☕"}]}', "utf-8")
    places = []
    visit_document(path, ("images",), lambda _k, _e, start, length: places.append((start, length)))
    with path.open("rb") as file:
        elements = [read_element(file.fileno(), *place) for place in places]
    assert elements == [{"name": "naïve"}, {"name": "☕"}]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"images": [{"a": 1}\n{"a": 2}]}', 2),
        ('{"images": [\n\n{"a": nope, "b": "cccccccccccccccccccccccccccccccccccccc"}]}', 3),
        ('{"images": [{"a": 1}', 1),
        ('{"images":\n[{"a": "unterminated}]}', 2),
        ('{"images": []}\n{"images": []}', 2),
        ("[1, 2]", 1),
        ("", 1),
    ],
)
def test_broken_json_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json:{line}: not valid JSON"):
        visit_document(path, ("images",), lambda *_: None)


def test_missing_and_compressed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: cannot be opened \(No such file"):
        visit_document(tmp_path / "a.json", (), lambda *_: None)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"gzip-compressed.*gunzip -k"):
        visit_document(tmp_path / "a.json.gz", (), lambda *_: None)


def test_an_absurdly_long_element_is_refused_before_memory_runs_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(json_stream, "_MAX_ELEMENT_BYTES", 64)
    path = tmp_path / "a.json"
    path.write_text('{"images": [{"a": "' + "x" * 10_000 + '"}]}')
    with pytest.raises(DataError, match=r"a\.json:1: not valid JSON \(Unterminated string"):
        visit_document(path, ("images",), lambda *_: None)
