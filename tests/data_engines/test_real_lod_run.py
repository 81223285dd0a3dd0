"""Records through the agent: files, resuming after SIGKILL, shards, and a world with a truth."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from llmdet.chat import Pace
from llmdet.data_engines.flow import Shard
from llmdet.data_engines.real_lod import ROLES, AgentSettings
from llmdet.data_engines.real_lod_run import read_settings, refine_records, unsolved_path
from llmdet.data_engines.runs import Run
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.toy.agent_expressions import is_true
from llmdet.datasets.toy.agent_models import (
    POLICIES,
    ScriptedModel,
    agent_models,
    random_planner,
    scripted_planner,
)
from llmdet.datasets.toy.agent_world import sample_world, write_world
from llmdet.errors import ConfigError

COUNT = 24


@pytest.fixture(scope="module")
def world():
    return sample_world(COUNT, seed=3)


@pytest.fixture(scope="module")
def records(world, tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), world)


def run(records: Path, out: Path, models=None, in_flight: int = 8, shard=None, **settings):
    ledger = Ledger()
    models = models or agent_models(ScriptedModel("planner", scripted_planner), 0.2)
    passage = Run(in_flight, shard or Shard())
    refine_records(records, records.parent, out, models, AgentSettings(**settings), ledger, passage)
    return out.read_bytes(), unsolved_path(out).read_bytes(), ledger


def rows(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines()]


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    return run(records, tmp_path_factory.mktemp("whole") / "out.jsonl")


def test_what_is_solved_and_what_is_not_have_files_of_their_own(world, records, whole):
    solved, unsolved, ledger = whole
    names = [json.loads(line)["image_path"] for line in records.read_text().splitlines()]
    assert sorted(row["image_path"] for row in rows(solved) + rows(unsolved)) == names
    assert rows(unsolved)
    for row in rows(solved):
        assert "unsolved" not in row
        assert is_true(row["refined_expression"], world[names.index(row["image_path"])].facts)
    causes = Counter(f"unsolved: {row['unsolved']}" for row in rows(unsolved))
    assert {c: n for c, n in ledger.counts.items() if c.startswith("unsolved")} == causes
    assert all(row["history"] for row in rows(solved) + rows(unsolved))


def test_the_scripted_planner_mends_most_and_chance_does_not(world, records, tmp_path, whole):
    def right(content: bytes) -> int:
        facts = {f"images/{i:06d}.png": sample.facts for i, sample in enumerate(world)}
        return sum(is_true(r["refined_expression"], facts[r["image_path"]]) for r in rows(content))

    before = sum(not sample.broken for sample in world)
    by_chance = run(
        records, tmp_path / "b.jsonl", agent_models(ScriptedModel("p", random_planner), 0.2)
    )
    assert right(whole[0] + whole[1]) > 0.8 * COUNT
    assert right(by_chance[0] + by_chance[1]) < before + 0.4 * COUNT


@pytest.mark.parametrize("pace", [Pace(1, 1), Pace(5, 1), Pace(1, 4)])
def test_batches_and_threads_change_nothing(records, tmp_path, whole, pace):
    models = agent_models(ScriptedModel("planner", scripted_planner), 0.2)
    for model in models.values():
        model.pace = pace
    again = run(records, tmp_path / "out.jsonl", models, in_flight=5)
    assert again[:2] == whole[:2]


class Killer:
    """A model whose process is killed in the middle of its work."""

    def __init__(self, model: ScriptedModel, left: int) -> None:
        self.model, self.left = model, left
        self.identity, self.pace = model.identity, Pace(3)

    def answer(self, requests):
        self.left -= len(requests)
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model.answer(requests)


def test_a_killed_run_goes_on_and_repeats_only_what_was_in_flight(records, tmp_path, whole):
    out = tmp_path / "out.jsonl"
    for left in (15, 15):  # killed twice
        child = os.fork()
        if not child:
            models = agent_models(ScriptedModel("planner", scripted_planner), 0.2)
            run(records, out, models | {"describer": Killer(models["describer"], left)})
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert not out.exists()
    done = len(out.with_name("out.jsonl.partial").read_bytes().splitlines()) - 1
    assert 0 < done < COUNT
    models = agent_models(ScriptedModel("planner", scripted_planner), 0.2)
    assert run(records, out, models)[:2] == whole[:2]
    asked_first = sum(not h["cycle"] for row in rows(whole[0] + whole[1]) for h in row["history"])
    assert asked_first == COUNT
    total = Counter(h["stage"] for row in rows(whole[0] + whole[1]) for h in row["history"])
    assert models["describer"].usage.requests < total["description"]


def test_shards_make_up_the_whole(records, tmp_path, whole):
    parts = [run(records, tmp_path / f"{i}.jsonl", shard=Shard(i, 2)) for i in range(2)]
    for place in range(2):
        lines = sorted(line for part in parts for line in part[place].splitlines())
        assert lines == sorted(whole[place].splitlines())


def test_a_run_with_other_prompts_does_not_continue(records, tmp_path):
    class StopError(Exception):
        pass

    def stop(request):
        raise StopError

    out = tmp_path / "out.jsonl"
    with pytest.raises(StopError):
        run(records, out, dict.fromkeys(ROLES, ScriptedModel("a", stop)))
    with pytest.raises(ConfigError, match=r"max cycles 3 \(now 2\)"):
        run(records, out, dict.fromkeys(ROLES, ScriptedModel("a", stop)), max_cycles=2)


def test_settings_of_a_config_are_checked():
    settings = read_settings({"max_cycles": 2, "prompts": {"planner": "Plan:"}})
    assert settings.max_cycles == 2
    assert settings.prompts.planner == "Plan:"
    with pytest.raises(ConfigError, match=r"agent\.max_cycle: did you mean 'max_cycles'\?"):
        read_settings({"max_cycle": 2})
    with pytest.raises(ConfigError, match=r"agent\.prompts\.planer: did you mean 'planner'\?"):
        read_settings({"prompts": {"planer": "Plan:"}})


def test_all_policies_end(records, tmp_path):
    for name, policy in POLICIES.items():
        solved, unsolved, _ = run(
            records, tmp_path / f"{name}.jsonl",
            agent_models(ScriptedModel(name, policy), 0.2), planner_confirms=True, max_cycles=1,
        )  # fmt: skip
        assert len(rows(solved) + rows(unsolved)) == COUNT
