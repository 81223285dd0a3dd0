"""Programs of many items go through models together, and nothing that was finished is lost."""

import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from llmdet.chat import Pace, ask
from llmdet.chat.endpoint import EndpointChat
from llmdet.data_engines.flow import Call, Shard, run_flow
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.datasets.ledger import BROKEN, Ledger
from llmdet.errors import ConfigError, DataError
from llmdet.testing.chat import completion


class StoppedError(Exception):
    pass


class Adder:
    """Adds to each number; remembers batches, and how many calls were under way."""

    def __init__(self, addend=1, pace=None, *, pause=0.0, stop_at=None, stop=None):
        self.addend, self.pace, self.pause = addend, pace or Pace(4), pause
        self.stop_at, self.stop = stop_at, stop
        self.seen: list[int] = []
        self.batches: list[int] = []
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def answer(self, numbers):
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.batches.append(len(numbers))
            self.seen += numbers
        if self.stop_at in numbers:
            self.stop()
        time.sleep(self.pause * random.random())
        with self.lock:
            self.under_way -= 1
        return [number + self.addend for number in numbers]


def stop():
    raise StoppedError


def program(number):
    """As many steps as the number's last digit says; items with 7 are broken, 9 asks nothing."""
    if number % 10 == 9:
        return Outcome({"item": number, "steps": []})
    if number % 10 == 7:
        return Outcome(None, problem=f"item {number}: a seven")
    steps = []
    for step in range(1 + number % 3):
        calls = [Call("first", number)]
        calls += [Call("second", 100 * number)] if step else []
        steps.append((yield calls))
    notes = (("zero", f"item {number}"),) if number % 10 == 0 else ()
    return Outcome({"item": number, "steps": steps}, notes=notes)


def run(folder: Path, models, *, count=25, bad=5, decided_by="x", **options):
    ledger = Ledger(bad)
    journal = Journal(folder / "out.jsonl.partial", {"engine": decided_by})
    finished: list[Outcome] = []
    run_flow(range(count), program, models, journal, ledger, finished=finished.extend, **options)
    assert len(finished) <= journal.done
    rows = journal.finish(folder / "out.jsonl", ledger)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(lines) == rows
    return lines, ledger


def two_models(*paces: Pace, **options):
    first, second = paces or (Pace(4), Pace(4))
    return {"first": Adder(1, first, **options), "second": Adder(5, second)}


EXPECTED = [
    {"item": n, "steps": [[n + 1], [n + 1, 100 * n + 5], [n + 1, 100 * n + 5]][: 1 + n % 3]}
    if n % 10 != 9
    else {"item": n, "steps": []}
    for n in range(25)
    if n % 10 != 7
]


@pytest.mark.parametrize("in_flight", [1, 3, 100])
@pytest.mark.parametrize(
    "paces", [(Pace(1), Pace(1)), (Pace(7), Pace(2)), (Pace(1, 6), Pace(2, 3))]
)
def test_rows_do_not_depend_on_pace_nor_on_items_in_flight(tmp_path, in_flight, paces) -> None:
    models = two_models(*paces, pause=0.002)
    rows, ledger = run(tmp_path, models, in_flight=in_flight)
    assert rows == EXPECTED
    assert ledger.counts == {BROKEN: 2, "zero": 3}
    for model in models.values():
        assert model.most <= min(model.pace.concurrency, in_flight)
        assert max(model.batches) <= min(model.pace.batch_size, in_flight)
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_batches_of_a_model_in_process_are_full_while_enough_items_wait(tmp_path) -> None:
    models = two_models(Pace(4), Pace(4))
    run(tmp_path, models, in_flight=16, count=25)
    # 40 calls of the first role: 11 by items 0 ... 24 with one step, 16 and 18 with more.
    assert sum(models["first"].batches) == 41
    assert Counter(models["first"].batches)[4] >= 9


def test_a_model_of_two_roles_gets_the_calls_of_both(tmp_path) -> None:
    model = Adder(1, Pace(3))
    rows, _ = run(tmp_path, {"first": model, "second": model})
    assert rows[1] == {"item": 1, "steps": [[2], [2, 101]]}
    assert model.most == 1


def test_a_slow_role_does_not_hold_up_the_other(tmp_path) -> None:
    """Items of the slow role wait until all others are through."""
    others_done = threading.Event()

    class Slow(Adder):
        def answer(self, numbers):
            assert others_done.wait(20)
            return super().answer(numbers)

    def program(number):
        yield [Call("slow" if number == 0 else "fast", number)]
        return Outcome({"item": number})

    def finished(outcomes) -> None:
        if journal.done == 24:
            others_done.set()

    journal = Journal(tmp_path / "j", {})
    models = {"slow": Slow(pace=Pace(1)), "fast": Adder(pace=Pace(1, 2))}
    run_flow(range(25), program, models, journal, Ledger(), in_flight=4, finished=finished)
    assert [outcome.row["item"] for outcome in journal.outcomes()] == list(range(25))


def test_a_missing_role_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no model has the role 'second'; there are \['first'\]"):
        run(tmp_path, {"first": Adder()})


def test_each_shard_has_its_part_and_together_they_have_all(tmp_path) -> None:
    parts = []
    for index in range(3):
        rows, _ = run(tmp_path, two_models(), shard=Shard(index, 3))
        assert {row["item"] % 3 for row in rows} == {index}
        parts += rows
    assert sorted(parts, key=lambda row: row["item"]) == EXPECTED
    assert [Shard(index, 3).size(25) for index in range(3)] == [9, 8, 8]
    with pytest.raises(ConfigError, match="shard 3/3"):
        Shard(3, 3)


@pytest.mark.parametrize("pace", [Pace(3), Pace(1, 4)])
def test_a_stopped_flow_goes_on_where_it_stopped(tmp_path, pace) -> None:
    first = two_models(pace, Pace(2), stop_at=11, stop=stop)
    with pytest.raises(StoppedError):
        run(tmp_path, first, in_flight=4)
    journal = Journal(tmp_path / "out.jsonl.partial", {"engine": "x"})
    done = [number for number in range(25) if journal.holds(number)]
    assert journal.done == len(done) >= 11 - 4
    second = two_models(pace, Pace(2))
    rows, ledger = run(tmp_path, second, in_flight=4)
    assert not {number for number in second["first"].seen if number in done}
    assert rows == EXPECTED
    assert ledger.counts == {BROKEN: 2, "zero": 3}


class CountingInFile(Adder):
    """Every call leaves a line in a file, which survives a kill; the nth call kills.

    0 kills never.
    """

    def __init__(self, log: Path, kill_at: int, pace: Pace):
        super().__init__(1, pace, pause=0.001)
        self.log, self.kill_at = log, kill_at

    def answer(self, numbers):
        with self.lock, self.log.open("a") as file:
            file.writelines(f"{number}\n" for number in numbers)
        if 0 < self.kill_at <= len(self.log.read_text().splitlines()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(numbers)


@pytest.mark.parametrize("pace", [Pace(1, 3), Pace(4)])
def test_a_killed_process_repeats_at_most_what_was_in_flight(tmp_path, pace) -> None:
    def one_call(number):
        (answer,) = yield [Call("only", number)]
        return Outcome({"item": number, "answer": answer})

    def work(kill_at: int) -> Journal:
        journal = Journal(tmp_path / "journal", {})
        models = {"only": CountingInFile(tmp_path / "calls", kill_at, pace)}
        run_flow(range(40), one_call, models, journal, Ledger(), in_flight=4)
        return journal

    process = multiprocessing.get_context("fork").Process(target=work, args=(24,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'{"number": 39, "row": {"cut sh')
    journal = work(0)
    assert [o.row for o in journal.outcomes()] == [{"item": n, "answer": n + 1} for n in range(40)]
    calls = Counter((tmp_path / "calls").read_text().split())
    assert set(calls) == {str(number) for number in range(40)}
    assert calls.total() - 40 <= 4
    assert max(calls.values()) <= 2


def test_answers_that_came_with_a_failure_are_kept(tmp_path) -> None:
    """One of two calls under way fails after the other was answered."""
    answered = threading.Event()

    class Failing(Adder):
        def answer(self, numbers):
            if numbers == [1]:
                assert answered.wait(20)
                time.sleep(0.05)
                raise DataError("the server is gone")
            answered.set()
            return super().answer(numbers)

    def program(number):
        yield [Call("only", number)]
        return Outcome({"item": number})

    journal = Journal(tmp_path / "j", {})
    with pytest.raises(DataError, match="the server is gone"):
        run_flow(
            range(2), program, {"only": Failing(pace=Pace(1, 2))}, journal, Ledger(), in_flight=2
        )
    assert [outcome.row for outcome in journal.outcomes()] == [{"item": 0}]


def test_a_journal_cut_short_in_its_first_line_begins_again(tmp_path) -> None:
    (tmp_path / "out.jsonl.partial").write_text('{"decided_by": {"eng')
    assert run(tmp_path, two_models())[0] == EXPECTED


def test_what_was_begun_before_the_broken_item_too_many_is_finished(tmp_path) -> None:
    for _ in range(2):  # a second run does not slip past it
        with pytest.raises(DataError, match=r"^item 7: a seven$"):
            run(tmp_path, two_models(), in_flight=5, bad=0)
    journal = Journal(tmp_path / "out.jsonl.partial", {"engine": "x"})
    assert [number for number in range(25) if journal.holds(number)] == list(range(7))


def test_broken_items_of_earlier_runs_count_against_the_limit(tmp_path) -> None:
    models = two_models(stop_at=40, stop=stop)
    with pytest.raises(StoppedError):
        run(tmp_path, models, count=60, in_flight=4)
    with pytest.raises(DataError, match=r"item 47: a seven \(more than max_bad_rows=4\)"):
        run(tmp_path, two_models(), count=60, bad=4)


def test_an_item_whose_program_cannot_use_its_data_is_broken(tmp_path) -> None:
    def program(number):
        (answer,) = yield [Call("first", number)]
        if number == 2:
            raise DataError("item 2: its picture is gone")
        return Outcome({"item": number, "answer": answer})

    journal = Journal(tmp_path / "j", {})
    run_flow(range(4), program, {"first": Adder()}, journal, Ledger(1))
    outcomes = list(journal.outcomes())
    assert [outcome.row and outcome.row["item"] for outcome in outcomes] == [0, 1, None, 3]
    assert outcomes[2].problem == "item 2: its picture is gone"


def test_a_reader_that_fails_loses_nothing_that_is_in_flight(tmp_path) -> None:
    def items():
        yield from range(3)
        raise DataError("line 4 is no JSON")

    journal = Journal(tmp_path / "j", {})
    with pytest.raises(DataError, match="line 4"):
        run_flow(items(), program, two_models(), journal, Ledger())
    assert journal.done == 3


def test_a_journal_of_something_else_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, two_models(stop_at=11, stop=stop))
    with pytest.raises(ConfigError, match=r"was begun with engine 'x' \(now 'y'\)\. Repeat the"):
        run(tmp_path, two_models(), decided_by="y")
    for text in ('{"settings": {}}\n', '{"decided_by": {"engine": "x"}}\n{"row": {}}\n'):
        (tmp_path / "out.jsonl.partial").write_text(text)
        with pytest.raises(ConfigError, match="was begun by another version of LLMDet"):
            run(tmp_path, two_models())


def test_the_rate_is_logged(tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path, two_models())
    assert caplog.messages[-1].startswith("25 items in 0 s, ")
    assert caplog.messages[-1].endswith(" a second")


def test_an_endpoint_may_answer_in_any_order(tmp_path, chat_server) -> None:
    def reply(body):
        text = body["messages"][-1]["content"][-1]["text"]
        time.sleep(0.02 * (int(text) % 5 == 0))  # the first of five is the last to be answered
        return 200, completion(f"answer {text}")

    def program(number):
        (first,) = yield [Call("chat", ask(str(number)))]
        (second, third) = yield [Call("chat", ask(str(n))) for n in (number + 100, number + 200)]
        return Outcome({"answers": [first, second, third]})

    chat_server.reply = reply
    journal = Journal(tmp_path / "j", {})
    chat = EndpointChat(chat_server.url, "m", concurrency=5)
    run_flow(range(12), program, {"chat": chat}, journal, Ledger(), in_flight=6)
    assert [outcome.row["answers"] for outcome in journal.outcomes()] == [
        [f"answer {number + more}" for more in (0, 100, 200)] for number in range(12)
    ]
    assert chat.usage.requests == 36
