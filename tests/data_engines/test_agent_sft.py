"""A planner learns from the plans that the agent has carried out."""

import json
from pathlib import Path

import pytest

from llmdet.chat import ask
from llmdet.chat.local import LocalChat
from llmdet.data_engines.agent_sft import (
    finetune_planner,
    planner_samples,
    read_sft_settings,
)
from llmdet.data_engines.real_lod import AgentSettings
from llmdet.data_engines.real_lod_run import refine_records, unsolved_path
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.toy.agent_models import ScriptedModel, agent_models, scripted_planner
from llmdet.datasets.toy.agent_world import sample_world, write_world
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.errors import ConfigError, DataError

LORA = dict(r=16, alpha=32, targets="all-linear")


@pytest.fixture(scope="module")
def refined(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("agent")
    records = write_world(folder, sample_world(12, seed=5))
    out = folder / "refined.jsonl"
    models = agent_models(ScriptedModel("planner", scripted_planner), 0.3)
    settings = AgentSettings(planner_confirms=True)
    refine_records(records, folder, out, models, settings, Ledger())
    return out


def samples_of(path: Path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return planner_samples([(str(i), row) for i, row in enumerate(rows)]), rows


def test_samples_are_what_the_planner_was_asked_and_answered(refined):
    samples, rows = samples_of(refined)
    assert len(samples) == sum(h["stage"] == "plan" for row in rows for h in row["history"])
    for sample in samples:
        assert sample.prompt.startswith("Plan:\n\nCategory: shape\nExpression: ")
        # The scripted planner is a function of what stands there.
        assert scripted_planner(ask(sample.prompt)) == sample.plan
    stops = [s for s in samples if json.loads(s.plan)["actions"] == []]
    assert len(stops) == len(rows)


def test_neither_rejected_plans_nor_unsolved_expressions_teach(refined):
    _, rows = samples_of(refined)
    row = json.loads(json.dumps(rows[0]))
    plans = [entry for entry in row["history"] if entry["stage"] == "plan"]
    before = len(planner_samples([("a", row)]))
    plans[0]["rejected"] = "no JSON"
    assert len(planner_samples([("a", row)])) == before - 1
    assert planner_samples([("a", row | {"unsolved": "still wrong"})]) == []
    with pytest.raises(DataError, match="a: there is no history"):
        planner_samples([("a", {k: v for k, v in row.items() if k != "history"})])


@pytest.mark.parametrize("lora", [LORA, None])
def test_a_planner_repeats_what_it_has_learned(refined, tmp_path, lora):
    samples, rows = samples_of(refined)
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps(rows[0]))
    texts = [text for sample in samples for text in (sample.prompt, sample.plan)]
    model = tiny_qwen(tmp_path / "model", corpus=texts, num_hidden_layers=2)
    settings = dict(
        model=model,
        lora=lora,
        training=dict(
            use_cpu=True, learning_rate=0.01, max_steps=40, per_device_train_batch_size=4,
            disable_tqdm=True,
        ),
    )  # fmt: skip
    out = tmp_path / "planner"
    learned, _ = samples_of(few)
    assert finetune_planner([few], out, read_sft_settings(settings), Ledger()) == len(learned)
    requests = [ask(sample.prompt) for sample in learned]
    wanted = [sample.plan for sample in learned]
    assert LocalChat(model, "cpu", 150).answer(requests) != wanted
    assert LocalChat(str(out), "cpu", 150).answer(requests) == wanted


def test_long_samples_are_left_out_and_counted(refined, tmp_path, monkeypatch):
    monkeypatch.setattr("llmdet.data_engines.agent_sft._train", lambda *_: None)
    model = tiny_qwen(tmp_path / "model")
    ledger = Ledger()
    settings = read_sft_settings(dict(model=model, lora=None, max_length=3))
    assert finetune_planner([refined], tmp_path / "out", settings, ledger) == 0
    assert ledger.counts["sample too long"] == len(samples_of(refined)[0])


def test_what_cannot_be_trained_is_named(refined, tmp_path):
    with pytest.raises(ConfigError, match=r"sft\.modell: did you mean 'model'\?"):
        read_sft_settings(dict(modell="a"))
    with pytest.raises(ConfigError, match="sft has no 'model'"):
        read_sft_settings({})
    model = tiny_qwen(tmp_path / "model")
    for change, message in (
        (dict(lora=dict(r=1, alpha=1, target="q_proj")), r"sft\.lora\.target: did you mean"),
        (dict(lora=dict(r=1)), "sft.lora has no 'alpha'"),
        (dict(lora=None, training=dict(learning_rat=1)), r"sft\.training: .*learning_rat"),
    ):
        settings = read_sft_settings(dict(model=model, **change))
        with pytest.raises(ConfigError, match=message):
            finetune_planner([refined], tmp_path / "out", settings, Ledger())
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_bytes(unsolved_path(refined).read_bytes())
    with pytest.raises(DataError, match="no plan led to a right expression"):
        finetune_planner([nothing], tmp_path / "out", settings, Ledger())
