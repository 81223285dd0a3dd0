"""The cache on disk stays within its size, forgets what was not used, and never gives damage."""

import multiprocessing
import os
import time

import pytest

from llmdet.datasets.storage.cache import DiskCache


def stored(folder) -> int:
    names = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in names if path.name not in ("total", "lock"))


def test_what_was_put_is_there_for_every_process_that_shares_the_folder(tmp_path):
    DiskCache(tmp_path, 10_000).put("key", b"content" * 10)
    assert DiskCache(tmp_path, 10_000).get("key") == b"content" * 10
    assert DiskCache(tmp_path, 10_000).get("other") is None


def test_what_was_not_used_for_longest_is_evicted_and_the_size_never_passed(tmp_path):
    cache = DiskCache(tmp_path, 1000, parts=1)
    for number in range(8):
        cache.put(str(number), bytes([number]) * 100)
        path = cache._path(str(number))
        os.utime(path, ns=(0, time.time_ns() - (1000 - number) * 1_000_000_000))
    assert cache.get("0") is not None  # is used again: the oldest one now is 1
    cache.put("8", b"8" * 100)
    cache.put("9", b"9" * 100)
    assert stored(tmp_path) <= 1000
    assert cache.get("0") is not None
    assert cache.get("1") is None
    assert cache.get("9") == b"9" * 100


def test_what_is_larger_than_its_part_is_not_kept(tmp_path):
    DiskCache(tmp_path, 6400).put("key", b"x" * 101)
    assert DiskCache(tmp_path, 0).get("key") is None
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b""])
def test_a_damaged_entry_counts_as_absent_and_is_written_again(tmp_path, damage):
    cache = DiskCache(tmp_path, 10_000, parts=1)
    cache.put("key", b"content")
    path = cache._path("key")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("key") is None
    cache.put("key", b"content")
    assert cache.get("key") == b"content"


def test_a_folder_that_cannot_be_written_costs_the_cache_and_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "cache", 10_000)
    for number in range(3):
        cache.put(str(number), b"content")
    assert cache.get("0") is None
    assert len(caplog.records) == 1


def _hammer(folder, seed):
    cache = DiskCache(folder, 20_000, parts=2)
    for turn in range(150):
        key = (seed * 7 + turn) % 60
        content = cache.get(str(key))
        if content is None:
            cache.put(str(key), bytes([key]) * (200 + 10 * key))
        elif content != bytes([key]) * (200 + 10 * key):
            raise SystemExit(1)


def test_processes_that_write_at_once_neither_mix_contents_nor_pass_the_size(tmp_path):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_hammer, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        sizes = []
        for path in tmp_path.rglob("*"):
            try:
                sizes.append(path.stat().st_size if len(path.name) == 32 else 0)
            except FileNotFoundError:
                continue
        assert sum(sizes) <= 20_000
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0] * 4
    assert not list(tmp_path.rglob("*.tmp"))
