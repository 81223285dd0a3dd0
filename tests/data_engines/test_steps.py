"""Steps go on where they stopped, keep the order of items, and lose nothing that was finished."""

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from llmdet.data_engines.journal import Journal, Outcome
from llmdet.data_engines.steps import Pace, run_step
from llmdet.datasets.ledger import BROKEN, Ledger
from llmdet.errors import ConfigError, DataError

PACE = Pace(3)


class StoppedError(Exception):
    pass


class Doubler:
    """The double of a number; odd tens are broken, and it stops at a number."""

    def __init__(self, stop: int = -1, pause: float = 0.0) -> None:
        self.stop, self.pause = stop, pause
        self.seen: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, numbers) -> list[Outcome]:
        self.threads.add(threading.get_ident())
        if self.stop in numbers:
            raise StoppedError
        # The later items are ready first.
        time.sleep(self.pause * (10 - numbers[0] % 10))
        self.seen += numbers
        return [
            Outcome(None, f"item {n}: odd")
            if n % 20 == 10
            else Outcome({"double": 2 * n}, notes=(("zero", f"item {n}"),) if n % 10 == 0 else ())
            for n in numbers
        ]


def run(folder: Path, engine, *, pace=PACE, count: int = 25, bad: int = 5, decided_by="x"):
    ledger = Ledger(bad)
    journal = Journal(folder / "out.jsonl.partial", {"engine": decided_by})
    written: list[int] = []
    run_step(range(count), engine, journal, ledger, pace, written.append)
    assert sum(written) == len(set(engine.seen))
    assert journal.finish(folder / "out.jsonl", ledger) == count - ledger.counts[BROKEN]
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return [row["double"] // 2 for row in rows], ledger


EXPECTED = [n for n in range(25) if n != 10]


@pytest.mark.parametrize("pace", [Pace(1), Pace(7), Pace(1, workers=4), Pace(2, workers=3)])
def test_rows_keep_the_order_of_items(tmp_path: Path, pace: Pace) -> None:
    engine = Doubler(pause=0.001)
    rows, ledger = run(tmp_path, engine, pace=pace)
    assert rows == EXPECTED
    assert ledger.counts == {BROKEN: 1, "zero": 2}
    assert len(engine.threads) <= pace.workers
    assert not (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.parametrize("pace", [Pace(3), Pace(1, workers=4)])
@pytest.mark.parametrize("stop", [0, 11, 24])
def test_a_stopped_step_goes_on_where_it_stopped(tmp_path: Path, pace: Pace, stop: int) -> None:
    first, second = Doubler(stop), Doubler()
    with pytest.raises(StoppedError):
        run(tmp_path, first, pace=pace)
    done = len((tmp_path / "out.jsonl.partial").read_text().splitlines()) - 1
    assert done >= stop - pace.batch_size * pace.workers
    rows, ledger = run(tmp_path, second, pace=pace)
    assert sorted(second.seen) == list(range(done, 25))
    assert rows == EXPECTED
    assert ledger.counts == {BROKEN: 1, "zero": 2}


def test_a_line_cut_short_is_done_again(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, Doubler(11))
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:-4])
    assert run(tmp_path, Doubler())[0] == EXPECTED


def test_a_journal_cut_short_in_its_first_line_begins_again(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").write_text('{"decided_by": {"eng')
    assert run(tmp_path, Doubler())[0] == EXPECTED


def test_what_was_finished_before_the_broken_item_too_many_is_kept(tmp_path: Path) -> None:
    for _ in range(2):  # a second run does not slip past it
        with pytest.raises(DataError, match=r"^item 10: odd$"):
            run(tmp_path, Doubler(), pace=Pace(25), bad=0)
    journal = Journal(tmp_path / "out.jsonl.partial", {"engine": "x"})
    assert journal.done == 10


def test_broken_items_of_earlier_runs_count_against_the_limit(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, Doubler(40), count=60)
    with pytest.raises(DataError, match=r"item 50: odd \(more than max_bad_rows=2\)"):
        run(tmp_path, Doubler(), count=60, bad=2)


def test_a_journal_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, Doubler(11))
    with pytest.raises(ConfigError, match=r"was begun with engine 'x' \(now 'y'\)\. Repeat the"):
        run(tmp_path, Doubler(), decided_by="y")
    (tmp_path / "out.jsonl.partial").write_text('{"settings": {}}\n')
    with pytest.raises(ConfigError, match="was begun by another version of LLMDet"):
        run(tmp_path, Doubler())


def test_the_rate_is_logged(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path, Doubler())
    assert caplog.messages[-1].startswith("25 items in 0 s, ")
    assert caplog.messages[-1].endswith(" a second")
