"""The commands of the data engines, against an endpoint on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from mmengine.config import Config

from llmdet.data_engines.models import read_model_settings
from llmdet.data_engines.real_data_run import RealDataSettings
from llmdet.data_engines.real_lod import ROLES
from llmdet.data_engines.real_lod_run import read_settings
from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.agent_world import sample_world, write_world
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.engine.runner import Runner
from llmdet.errors import ConfigError
from llmdet.testing.chat import Reply, completion, tiny_llava, tiny_similarity
from llmdet.testing.programs import load_program
from llmdet.testing.region_models import tiny_region_lmm
from llmdet.utils.config import load_config

TOOL = Path(__file__).parents[2] / "tools" / "data_engine.py"
CAPTION = "A red circle lies above a blue square on a plain grey background without other shapes."


def answer(body: dict) -> Reply:
    tokens = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    prompt = body["messages"][0]["content"][1]["text"]
    text = "a small bright shape." if "phrase" in prompt else CAPTION
    return 200, completion(text) | {"usage": tokens}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_program(TOOL)


def test_a_coco_file_gets_captions_and_region_phrases(
    tool, chat_server, tmp_path: Path, capsys
) -> None:
    chat_server.reply = answer
    root = tmp_path / "toy"
    generate(root, ToySettings(train=3, val=1, size=48))
    out = tmp_path / "rows.jsonl"
    annotations = root / "annotations" / "train_coco.json"
    given = json.loads(annotations.read_text())
    arguments = ["captions", str(annotations), str(root / "images"), str(out)]
    arguments += [
        "--backend",
        "openai",
        "--url",
        chat_server.url,
        "--model",
        "m",
        "--min-words",
        "10",
    ]
    tool.main([*arguments, "--regions", "16", "--price", "10", "1000"])
    shown = capsys.readouterr()
    requests = 3 + len(given["annotations"])
    cost = requests * (100 * 10 + 10 * 1000) / 1e6
    spent = f"{requests} requests, {requests * 100:,} + {requests * 10} tokens, cost {cost:.4f}"
    assert f"rows.jsonl: 3 rows ({spent})" in shown.out
    assert f"0 rejects, {spent}" in shown.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["conversations"][1]["value"] for row in rows] == [CAPTION] * 3
    regions = [region for row in rows for region in row["grounding"]["regions"]]
    assert {region["phrase"] for region in regions} == {"a small bright shape"}
    boxes = [b if isinstance(b[0], list) else [b] for b in (r["bbox"] for r in regions)]
    assert sum(map(len, boxes)) == len(given["annotations"])

    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r"rows\.jsonl exists: .* --overwrite"):
        tool.main(arguments)
    assert out.read_bytes() == before
    tool.main([*arguments, "--overwrite"])
    assert b"bright" not in out.read_bytes()  # no regions were asked for


def test_the_agent_asks_the_models_of_a_config(tool, chat_server, root, tmp_path, capsys) -> None:
    """Against an endpoint that has every expression looked at, rewritten and confirmed."""
    answer_to = load_program(root / "tools" / "benchmark" / "agent.py").answer_to
    chat_server.reply = lambda body: (200, completion(answer_to(body)))
    records = write_world(tmp_path, sample_world(4))
    config, out = tmp_path / "config.py", tmp_path / "refined.jsonl"
    model = dict(backend="openai", model="m", url=chat_server.url)
    config.write_text(f"models = {dict.fromkeys(ROLES, model)}\nagent = dict(max_cycles=2)\n")
    tool.main(["real-lod", str(records), str(out), "--config", str(config)])
    assert "refined.jsonl: 4 rows (28 requests)" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["refined_expression"] for row in rows] == ["blue thing"] * 4
    again = ["real-lod", str(records), str(out), "--config", str(config), "--overwrite"]
    tool.main([*again, "--max-cycles", "1"])
    assert "refined.jsonl: 0 rows (16 requests)" in capsys.readouterr().out
    unsolved = (tmp_path / "refined_unsolved.jsonl").read_text().splitlines()
    assert [json.loads(line)["unsolved"] for line in unsolved] == [
        "still wrong after the last cycle"
    ] * 4


@pytest.mark.parametrize("name", ["real_data", "real_data_endpoints"])
def test_the_configs_of_expressions_name_a_model_for_each_role(root, name) -> None:
    config = load_config(root / "configs" / "data_engines" / f"{name}.py")
    roles = RealDataSettings().roles
    assert set(read_model_settings(config, roles)) == set(roles)


@pytest.mark.parametrize("name", ["real_lod", "real_lod_endpoints"])
def test_the_configs_of_the_agent_name_a_model_for_each_role(root, name) -> None:
    config = load_config(root / "configs" / "data_engines" / f"{name}.py")
    assert set(read_model_settings(config, ROLES)) == set(ROLES)
    assert read_settings(config.agent).max_cycles == 3


def test_a_planner_is_finetuned_by_a_config(tool, root, tmp_path, capsys, monkeypatch) -> None:
    given = []

    def finetune(files, out, settings, ledger):
        given.append((files, out, settings))
        return 7

    monkeypatch.setattr("llmdet.data_engines.agent_sft.finetune_planner", finetune)
    config = root / "configs" / "data_engines" / "agent_sft.py"
    out = tmp_path / "planner"
    command = ["agent-sft", "a.jsonl", "b.jsonl", str(out), "--config", str(config)]
    tool.main([*command, "--cfg-options", "sft.lora.r=8"])
    assert f"{out}: a planner that has learned from 7 plans" in capsys.readouterr().out
    [(files, folder, settings)] = given
    assert ([file.name for file in files], folder) == (["a.jsonl", "b.jsonl"], out)
    assert settings.lora["r"] == 8
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="exists"):
        tool.main(command)


def command(tmp_path: Path, *arguments: str) -> list[str]:
    files = [tmp_path / "a.xyz", tmp_path, tmp_path / "b.jsonl"]
    return ["captions", *map(str, files), *arguments]


MODEL = ("--backend", "openai", "--url", "http://localhost:1", "--model", "m")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (MODEL[:2] + MODEL[4:], "the model 'm' of backend openai needs a url"),
        (MODEL[:4], "--backend openai needs --model"),
        ((), "by --backend and --model, or by --config"),
        ((*MODEL, "--config", "c.py"), "by --backend and --model, or by --config"),
        (MODEL, "the format is not clear; say it with --from"),
    ],
)
def test_what_is_missing_is_said(tool, tmp_path: Path, arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tool.main(command(tmp_path, *arguments))


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_a_shard_is_one_of_several(tool, tmp_path: Path, capsys, shard: str) -> None:
    with pytest.raises(SystemExit):
        tool.main(command(tmp_path, *MODEL, f"--shard={shard}"))
    assert "I/N with I from 0 to N-1" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "1.5", "x"])
def test_a_number_of_things_is_none_or_more(tool, tmp_path: Path, capsys, number: str) -> None:
    with pytest.raises(SystemExit):
        tool.main(command(tmp_path, *MODEL, f"--regions={number}"))
    assert f"argument --regions: {'it is a whole number' if number == '-1' else 'invalid'}" in (
        capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def local_models(tmp_path_factory) -> list[str]:
    """Arguments for a vision-language model and a CLIP of random weights in this process."""
    vlm = tiny_llava(tmp_path_factory.mktemp("vlm"))
    clip = tiny_similarity(tmp_path_factory.mktemp("clip"))
    arguments = ["--backend", "transformers", "--model", vlm, "--device", "cpu"]
    return [*arguments, "--max-new-tokens", "8", "--clip", clip, "--min-side", "4"]


def test_regions_described_by_models_of_this_process_train_a_region_language_model(
    tool, tmp_path: Path, capsys, local_models
) -> None:
    root = tmp_path / "toy"
    generate(root, ToySettings(train=2, val=1, size=48))
    files = [root / "annotations" / "train_coco.json", root / "images", tmp_path / "rows.jsonl"]
    arguments = ["recapd", *map(str, files), *local_models, "--regions", "3"]
    tool.main([*arguments, "--min-words", "1", "--min-global-words", "1"])
    rows = [json.loads(line) for line in files[-1].read_text().splitlines()]
    assert f"rows.jsonl: {len(rows)} rows (" in capsys.readouterr().out
    regions = [region for row in rows for region in row["regions"]]
    assert len(rows) == 2
    assert len({region["caption"] for region in regions}) > 1
    assert all(region["caption"] and -1 <= region["similarity"] <= 1 for region in regions)

    pipeline = ["LoadImageFromFile", "TokenizeConversations", "MakeViews", "PackViews"]
    dataset = {
        "type": "ODVGDataset",
        "data_root": str(root),
        "ann_file": str(files[-1]),
        "data_prefix": {"img": "images/"},
        "filter_cfg": {"filter_empty_gt": False},
        "pipeline": [{"type": kind} for kind in pipeline],
    }
    qwen = tiny_qwen(tmp_path / "qwen")
    config = {
        "default_scope": "llmdet",
        "model": tiny_region_lmm(qwen, talk={"max_length": 2000, "max_new_tokens": 4}),
        "work_dir": str(tmp_path / "work"),
        "train_dataloader": {"dataset": dataset, "batch_size": 2, "num_workers": 0,
                             "sampler": {"type": "InfiniteSampler"}},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 5, "val_interval": 100},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 2e-3}},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False}},
        "randomness": {"seed": 1},
        "experiment_name": "recapd",
    }  # fmt: skip
    runner = Runner.from_cfg(Config(config))
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss_lmm").data
    assert len(losses) == 5
    assert losses[-1] < losses[0]


def test_detections_become_expressions_by_models_of_this_process(
    tool, tmp_path: Path, local_models
) -> None:
    root = tmp_path / "toy"
    generate(root, ToySettings(train=2, val=1, size=48))
    files = [root / "annotations" / "train_coco.json", root / "images", tmp_path / "out"]
    arguments = ["real-data", *map(str, files), *local_models, "--without-agent"]
    tool.main([*arguments, "--min-words", "1", "--objects", "2"])
    rows = (tmp_path / "out" / "real_data.jsonl").read_text().splitlines()
    assert len(rows) == 2
    assert not (tmp_path / "out" / "refined.jsonl").exists()


def answer_as_all_roles(body: dict) -> Reply:
    text = body["messages"][-1]["content"][-1]["text"]
    answers = {
        "Answer with the phrase alone": "a small bright shape",
        "Answer with the sentence alone": "a bright shape on the plain grey background",
        "in one detailed paragraph": CAPTION,
        "Write one expression on each line": "1. the odd thing\n2. shape on grey",
        "Compare an expression": "Feedback: it is no thing.\nConclusion: "
        + ("wrong" if "Expression: the odd thing" in text else "right"),
        "You supervise": '{"actions": [{"tool_name": "LLM", "tool_parameters": {}}]}',
        "Write a new expression": "New expression: the bright shape",
    }
    return 200, completion(next(reply for words, reply in answers.items() if words in text))


def test_detections_become_rows_of_real_data_through_the_agent(
    tool, chat_server, tmp_path: Path, capsys
) -> None:
    chat_server.reply = answer_as_all_roles
    root, out = tmp_path / "toy", tmp_path / "out"
    generate(root, ToySettings(train=3, val=1, size=48))
    model = dict(backend="openai", model="m", url=chat_server.url, batch_size=4)
    roles = (*ROLES, "captioner", "diversifier")
    (tmp_path / "models.py").write_text(f"models = {dict.fromkeys(roles, model)}\n")
    arguments = ["real-data", str(root / "annotations" / "train_coco.json"), str(root / "images")]
    arguments += [str(out), "--no-filter", "--config", str(tmp_path / "models.py")]
    arguments += ["--objects", "1", "--min-side", "4", "--min-words", "5"]
    tool.main(arguments)
    shown = capsys.readouterr().out
    assert "expressions.jsonl: 12 rows" in shown
    assert "refined.jsonl: 12 rows" in shown
    rows = [json.loads(line) for line in (out / "real_data.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        pairs = {source: pair[0]["positive_expressions"] for source, pair in row["pairs"].items()}
        assert pairs == {
            "vlm_short": ["a small bright shape"],
            "vlm_long": ["a bright shape on the plain grey background"],
            "llm": ["the bright shape", "shape on grey"],
        }
    asked = len(chat_server.requests)
    tool.main(arguments)  # all stages are over
    assert len(chat_server.requests) == asked
    with pytest.raises(ConfigError, match=r"begun with objects 1 \(now 2\)"):
        tool.main([*arguments, "--objects", "2"])

    dataset = ODVGDataset(
        data_root=str(root), ann_file=str(out / "real_data.jsonl"), data_prefix={"img": "images/"}
    )
    assert len(dataset) == 3
