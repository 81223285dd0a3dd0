"""Indices are written whole, to the first place where that is possible."""

import pytest

from llmdet.datasets.index_files import remove_leftovers, write_whole
from llmdet.errors import DataError


def write(file):
    file.write(b"whole")
    return 5


def test_the_first_place_that_can_be_written_is_taken(tmp_path):
    (tmp_path / "no folder").write_text("")
    blocked, free = tmp_path / "no folder" / "a.index", tmp_path / "new" / "a.index"
    assert write_whole((blocked, free), write, "a.jsonl") == (free, 5)
    assert free.read_bytes() == b"whole"
    with pytest.raises(DataError, match=r"a\.jsonl: its index can be written nowhere"):
        write_whole((blocked,), write, "a.jsonl")


def test_a_writer_that_fails_leaves_nothing_and_what_was_there_before(tmp_path):
    place = tmp_path / "a.index"
    place.write_bytes(b"before")

    def fail(file):
        file.write(b"half")
        raise DataError("the file changed")

    with pytest.raises(DataError, match="changed"):
        write_whole((place,), fail, "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.index"]
    assert place.read_bytes() == b"before"


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    for name in ("a.index.123.456.tmp", "a.index", "b.index.1.2.tmp"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a.index")
    assert {path.name for path in tmp_path.iterdir()} == {"a.index", "b.index.1.2.tmp"}
