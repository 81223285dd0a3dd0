import gzip
import json
import logging
import multiprocessing
import os
import pickle
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets import index_format, jsonl_index
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.errors import DataError

ROWS = [
    {"filename": "a.jpg", "width": 640, "height": 480, "caption": "naïve café ☕"},
    {"filename": "b.jpg", "width": 300, "height": 400},
    {"filename": "c.jpg"},
]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_rows(path: Path, rows: list[dict]) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def make_old(path: Path) -> None:
    """Move the time of modification far enough back for the index to trust it."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 60_000_000_000))


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    make_old(path)
    return path


def test_rows_lines_and_ratios_are_those_of_the_file(rows_file: Path) -> None:
    rows = IndexedJsonl(rows_file)
    assert list(rows) == ROWS
    assert rows[-1] == ROWS[-1]
    assert [rows.line_number(i) for i in range(3)] == [1, 2, 3]
    assert rows.location(1) == f"{rows_file}:2"
    assert json.loads(rows.line(0)) == ROWS[0]
    assert rows.aspect_ratios.dtype == np.float32
    np.testing.assert_allclose(rows.aspect_ratios, [4 / 3, 0.75, np.nan], rtol=1e-6)
    with pytest.raises(IndexError):
        rows[3]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3)),
    blanks=st.lists(st.sampled_from(["", " ", "\t\t", "  \r"]), min_size=1, max_size=4),
    ending=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    final_newline=st.booleans(),
)
def test_any_line_ending_blank_line_or_byte_order_mark_gives_the_same_rows(
    tmp_path: Path, rows, blanks, ending, bom, final_newline
) -> None:
    lines = []
    numbers = []
    for position, row in enumerate(rows):
        lines += blanks[: position % (len(blanks) + 1)]
        lines.append(json.dumps(row, ensure_ascii=False))
        numbers.append(len(lines))
    text = ending.join(lines) + (ending if final_newline else "")
    path = tmp_path / "any.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    indexed = IndexedJsonl(path)
    assert list(indexed) == rows
    assert [indexed.line_number(i) for i in range(len(rows))] == numbers
    assert [json.loads(indexed.line(i)) for i in range(len(rows))] == rows


def test_rows_are_right_where_the_index_is_written_in_several_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(jsonl_index, "_ROWS_PER_WRITE", 7)
    rows = [{"filename": "x" * i, "width": i + 1, "height": 1} for i in range(50)]
    indexed = IndexedJsonl(write_rows(tmp_path / "rows.jsonl", rows))
    assert list(indexed) == rows
    np.testing.assert_array_equal(indexed.aspect_ratios, np.arange(1, 51, dtype=np.float32))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    rows = IndexedJsonl(write(tmp_path / "empty.jsonl", ""))
    assert len(rows) == 0
    assert rows.aspect_ratios.shape == (0,)


def test_the_second_open_uses_the_index_of_the_first(rows_file: Path, monkeypatch) -> None:
    IndexedJsonl(rows_file)

    def fail(*_):
        raise AssertionError("the index was built or the file hashed again")

    monkeypatch.setattr(jsonl_index, "_build_index", fail)
    monkeypatch.setattr(jsonl_index, "file_digest", fail)
    assert list(IndexedJsonl(rows_file)) == ROWS


def test_a_touched_file_keeps_its_index_and_refreshes_the_stamp(rows_file, monkeypatch) -> None:
    IndexedJsonl(rows_file)
    make_old(rows_file)
    monkeypatch.setattr(jsonl_index, "_build_index", None)
    assert list(IndexedJsonl(rows_file)) == ROWS
    monkeypatch.setattr(jsonl_index, "file_digest", None)
    assert list(IndexedJsonl(rows_file)) == ROWS


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_with_new_contents_is_indexed_again(rows_file: Path, caplog, same_size) -> None:
    IndexedJsonl(rows_file)
    changed = [dict(row) for row in ROWS]
    changed[0]["filename"] = "z.jpg" if same_size else "longer.jpg"
    write_rows(rows_file, changed)
    with caplog.at_level(logging.WARNING):
        assert list(IndexedJsonl(rows_file)) == changed
    assert "has changed since it was indexed" in caplog.text


def test_a_rewrite_within_the_clock_resolution_of_the_first_is_noticed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    stamp = path.stat().st_mtime_ns
    IndexedJsonl(path)
    changed = [{**ROWS[0], "filename": "z.jpg"}, *ROWS[1:]]
    write_rows(path, changed)
    os.utime(path, ns=(stamp, stamp))
    assert list(IndexedJsonl(path)) == changed


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 200])
def test_a_torn_or_foreign_index_is_replaced(rows_file: Path, damage: bytes) -> None:
    IndexedJsonl(rows_file)
    index = rows_file.with_name("rows.jsonl.index")
    index.write_bytes(damage or index.read_bytes()[:-1])
    assert list(IndexedJsonl(rows_file)) == ROWS


@pytest.mark.parametrize("place", range(120, 0, -7))
def test_a_flipped_bit_of_the_index_costs_a_warning_and_no_row(rows_file, caplog, place) -> None:
    """Wherever it is: in a start, a length, a line, a ratio, a checksum or the header."""
    IndexedJsonl(rows_file)
    index = rows_file.with_name("rows.jsonl.index")
    whole = index.read_bytes()
    damaged = bytearray(whole)
    damaged[-place] ^= 4
    index.write_bytes(damaged)
    rows = IndexedJsonl(rows_file)
    assert list(rows) == ROWS
    assert [rows.line_number(number) for number in range(3)] == [1, 2, 3]
    np.testing.assert_allclose(rows.aspect_ratios, [4 / 3, 0.75, np.nan], rtol=1e-6)
    assert index.read_bytes() == whole


def test_a_damaged_block_is_noticed_when_a_row_of_it_is_read(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(index_format, "BLOCK_ROWS", 2)
    monkeypatch.setattr(jsonl_index, "BLOCK_ROWS", 2)
    path = write_rows(tmp_path / "rows.jsonl", ROWS * 3)
    make_old(path)
    IndexedJsonl(path)
    index = path.with_name("rows.jsonl.index")
    damaged = bytearray(index.read_bytes())
    damaged[index_format.HEADER_SIZE + 4 * index_format.ROW.itemsize] ^= 1
    index.write_bytes(damaged)
    rows = IndexedJsonl(path)
    assert rows[3] == ROWS[0]
    assert not caplog.records
    assert rows[4] == ROWS[1]
    assert "its index is damaged; indexing the file again" in caplog.text


def test_what_a_killed_builder_left_is_removed(rows_file: Path) -> None:
    left = rows_file.with_name("rows.jsonl.index.123.456.tmp")
    left.write_bytes(b"half")
    IndexedJsonl(rows_file)
    assert not left.exists()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"filename": "\xff"}', r":1: not UTF-8 \(byte 0xff at character 15 of the line\)"),
        (b'{"bbox": [NaN]}', r":1: not valid JSON \(.* at character 11 of the line\)"),
    ],
)
def test_a_single_broken_row_is_not_taken_for_a_document(tmp_path, line, problem) -> None:
    with pytest.raises(DataError, match=problem) as error:
        IndexedJsonl(write(tmp_path / "rows.jsonl", line))
    assert "COCO" not in str(error.value)


def test_reading_after_the_contents_changed_under_an_open_file_fails(rows_file: Path) -> None:
    rows = IndexedJsonl(rows_file)
    write_rows(rows_file, [{**ROWS[0], "filename": "z.jpg"}, *ROWS[1:]])
    with pytest.raises(DataError, match=r"rows\.jsonl: the file changed while it was open"):
        rows[1]


def test_reading_after_a_truncation_fails(rows_file: Path) -> None:
    rows = IndexedJsonl(rows_file)
    os.truncate(rows_file, 10)
    with pytest.raises(DataError, match="changed while it was open"):
        rows[2]


def test_touching_an_open_file_does_no_harm(rows_file: Path) -> None:
    rows = IndexedJsonl(rows_file)
    make_old(rows_file)
    assert rows[0] == ROWS[0]


def test_an_open_file_that_is_replaced_by_rename_still_reads_the_old_rows(rows_file: Path) -> None:
    rows = IndexedJsonl(rows_file)
    other = write_rows(rows_file.with_name("other"), [{"filename": "new.jpg"}])
    other.replace(rows_file)
    assert list(rows) == ROWS


@pytest.mark.parametrize("permitted", [0, 1])
def test_too_many_broken_rows_name_file_line_and_problem(tmp_path: Path, permitted: int) -> None:
    path = write(tmp_path / "rows.jsonl", '{"filename": "a"}\n\n{"filename": \n{"a": 1}\n[1, 2]\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:3: not valid JSON .*2 line\(s\)") as error:
        IndexedJsonl(path, max_bad_rows=permitted)
    assert f"max_bad_rows={permitted}" in str(error.value)


def test_permitted_broken_rows_are_skipped_counted_and_logged(tmp_path: Path, caplog) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n[1, 2]\n{"a": NaN}\n{"a": 2}')
    with caplog.at_level(logging.WARNING):
        rows = IndexedJsonl(path, max_bad_rows=2)
    assert list(rows) == [{"a": 1}, {"a": 2}]
    assert rows.line_number(1) == 4
    assert rows.bad_lines == (2, 3)
    assert "rows.jsonl:2: a row must be a JSON object, this one is a list" in caplog.text
    assert "2 broken line(s) are skipped" in caplog.text


@pytest.mark.parametrize("indent", [None, 1])
def test_a_coco_document_is_recognised(tmp_path: Path, indent: int | None) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(600)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps([{"images": images}], indent=indent))
    with pytest.raises(DataError, match=r"looks like one JSON document.*tools/convert/data\.py"):
        IndexedJsonl(path)


def test_compressed_files_are_refused_with_the_command_that_unpacks_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    with pytest.raises(DataError, match=r"gzip-compressed.*gunzip -k .*rows\.jsonl\.gz"):
        IndexedJsonl(path)


def test_utf16_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(DataError, match=r"is UTF-16.*iconv"):
        IndexedJsonl(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be opened \(No such file"):
        IndexedJsonl(tmp_path / "absent.jsonl")


@pytest.fixture
def read_only_index_place(rows_file: Path, tmp_path: Path, monkeypatch) -> Path:
    """The index cannot be written beside the file (chmod would not stop root)."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    beside = rows_file.with_name("rows.jsonl.index")
    real_open = Path.open

    def refuse(self: Path, *args, **kwargs):
        if self.name.startswith(beside.name) and self.parent == beside.parent:
            raise PermissionError(13, "Permission denied")
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    return cache


def test_the_index_of_a_read_only_folder_goes_to_the_cache_and_says_so(
    rows_file: Path, read_only_index_place: Path, caplog, monkeypatch
) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(IndexedJsonl(rows_file)) == ROWS
    (index,) = (read_only_index_place / "llmdet" / "jsonl").iterdir()
    assert "is not writable" in caplog.text
    assert str(index) in caplog.text
    monkeypatch.setattr(jsonl_index, "_build_index", None)
    assert list(IndexedJsonl(rows_file)) == ROWS


def test_an_index_that_fits_nowhere_is_an_error_with_a_remedy(
    rows_file: Path, read_only_index_place: Path
) -> None:
    read_only_index_place.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"can be written nowhere .*XDG_CACHE_HOME"):
        IndexedJsonl(rows_file)


def test_no_temporary_file_is_left_behind(rows_file: Path) -> None:
    IndexedJsonl(rows_file)
    names = sorted(path.name for path in rows_file.parent.iterdir())
    assert names == ["rows.jsonl", "rows.jsonl.index"]


def test_the_index_is_readable_by_other_users(rows_file: Path) -> None:
    IndexedJsonl(rows_file)
    mode = rows_file.with_name("rows.jsonl.index").stat().st_mode
    assert mode & stat.S_IRUSR
    assert (mode & 0o077) == (rows_file.stat().st_mode & 0o077) & ~stat.S_IXOTH


def test_a_symbolic_link_shares_the_index_of_its_target(rows_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    link = folder / "linked.jsonl"
    link.symlink_to(rows_file)
    assert list(IndexedJsonl(link)) == ROWS
    assert [path.name for path in folder.iterdir()] == ["linked.jsonl"]


def test_pickled_rows_read_the_same_file_and_notice_a_change(rows_file: Path) -> None:
    frozen = pickle.dumps(IndexedJsonl(rows_file))
    assert len(frozen) < 1000
    assert list(pickle.loads(frozen)) == ROWS
    write_rows(rows_file, ROWS[:2])
    with pytest.raises(DataError, match="changed while it was open"):
        pickle.loads(frozen)


def _read_all(rows: IndexedJsonl, seed: int, queue) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    queue.put(all(rows[i] == {"filename": f"{i}.jpg" * (i % 9 + 1)} for i in order))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_their_own_rows_at_the_same_time(tmp_path: Path, method: str) -> None:
    expected = [{"filename": f"{i}.jpg" * (i % 9 + 1)} for i in range(2000)]
    rows = IndexedJsonl(write_rows(tmp_path / "rows.jsonl", expected))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_read_all, args=(rows, i, queue)) for i in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [True] * 3


def _open_and_count(path: str, start_at: float, queue) -> None:
    time.sleep(max(0.0, start_at - time.time()))
    queue.put(len(IndexedJsonl(path)))


@pytest.mark.parametrize("can_lock", [True, False])
def test_ranks_that_start_together_agree(tmp_path: Path, monkeypatch, can_lock: bool) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"filename": str(i)} for i in range(20_000)])
    if not can_lock:
        monkeypatch.setattr(jsonl_index, "_try_lock", lambda _: False)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    start_at = time.time() + 0.2
    ranks = [
        context.Process(target=_open_and_count, args=(str(path), start_at, queue)) for _ in range(4)
    ]
    for rank in ranks:
        rank.start()
    counts = [queue.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join()
    assert counts == [20_000] * 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl", "rows.jsonl.index"]
