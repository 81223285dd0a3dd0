"""Jobs of several seeds begin when what they need is done, each once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from llmdet.testing.seeded_jobs import SeededJobs

NEEDS = {"look": (), "train": (), "ask": ("look", "train")}


@dataclass(frozen=True)
class Recorded(SeededJobs):
    """Notes what begins and what has ended, which takes its time for what others need."""

    program, short_sizes, shared = "none", None, ("look",)

    happened: list[tuple[str, str, int]] = field(default_factory=list)

    def needs(self, name):
        return NEEDS[name]

    def run_apart(self, name, seed):
        self.happened.append(("begin", name, seed))
        time.sleep(0.2 if name == "look" else 0.05)
        self.happened.append(("end", name, seed))


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_what_a_job_needs_has_ended_before_it_begins(tmp_path, processes):
    jobs = Recorded(tmp_path, None)
    jobs.run_all(list(NEEDS), [3, 4], processes)
    happened = jobs.happened
    begun = [event[1:] for event in happened if event[0] == "begin"]
    assert sorted(begun) == [("ask", 3), ("ask", 4), ("look", 0), ("train", 3), ("train", 4)]
    for seed in (3, 4):
        asked = happened.index(("begin", "ask", seed))
        assert happened.index(("end", "look", 0)) < asked
        assert happened.index(("end", "train", seed)) < asked


def test_a_seed_does_not_wait_for_the_others(tmp_path):
    asked = threading.Event()

    class Slow(Recorded):
        def run_apart(self, name, seed):
            if (name, seed) == ("train", 4):
                assert asked.wait(10), "the first seed waited for the second"
            super().run_apart(name, seed)
            if (name, seed) == ("ask", 3):
                asked.set()

    Slow(tmp_path, None).run_all(list(NEEDS), [3, 4], 2)
    assert asked.is_set()


def test_finished_jobs_are_not_repeated(tmp_path):
    jobs = Recorded(tmp_path, None)
    for name in ("look", "train"):
        jobs.place(name, 3).mkdir()
        jobs.result_file(name, 3).write_text("{}")
    jobs.run_all(list(NEEDS), [3], 1)
    assert [event[1:] for event in jobs.happened] == [("ask", 3), ("ask", 3)]


def test_the_same_seed_twice_is_one(tmp_path):
    jobs = Recorded(tmp_path, None)
    jobs.run_all(list(NEEDS), [3, 3], 4)
    assert [event[1] for event in jobs.happened].count("train") == 2  # its begin and its end


def test_nothing_begins_behind_a_job_that_failed(tmp_path):
    class Fails(Recorded):
        def run_apart(self, name, seed):
            if (name, seed) == ("train", 3):
                raise SystemExit("'train' failed")
            super().run_apart(name, seed)

    jobs = Fails(tmp_path, None)
    with pytest.raises(SystemExit, match="'train' failed"):
        jobs.run_all(list(NEEDS), [3, 4], 2)
    # Nothing of the other seed needs what failed.
    assert ("end", "look", 0) in jobs.happened
    assert not any(name == "ask" for _, name, _ in jobs.happened)
