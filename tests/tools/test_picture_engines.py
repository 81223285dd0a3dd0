"""The commands of the engines that begin with bare pictures, with a tiny detector."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from llmdet.data_engines.models import read_model_settings
from llmdet.data_engines.rexverse import RexverseSettings
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.predictions import PredictionHeader
from llmdet.testing.chat import Reply, completion, tiny_llava
from llmdet.testing.programs import load_program
from llmdet.utils.config import load_config

TOOL = Path(__file__).parents[2] / "tools" / "data_engine.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_program(TOOL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three pictures of noise, of 64 x 48 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def local_model(tmp_path_factory) -> list[str]:
    """Arguments for a vision-language model of random weights in this process."""
    vlm = tiny_llava(tmp_path_factory.mktemp("vlm"))
    return ["--backend", "transformers", "--model", vlm, "--max-new-tokens", "8"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def say_of_rexverse(body: dict) -> Reply:
    text = body["messages"][-1]["content"][-1]["text"]
    answers = {
        "Describe this picture": "A dog stands before a red circle.",
        "This is a part": "It is a blurred thing of many colours that stands still.",
        "A detector looked": "Match: yes\nExpression: the blurred thing of many colours",
        "Write 1 questions": "Q: What stands here?\nA: [A thing](0).",
    }
    return 200, completion(next(said for words, said in answers.items() if words in text))


SMALL_PICTURES = ("--min-picture-side", "32", "--min-side", "2", "--device", "cpu")


def test_pictures_become_conversations_by_a_detector_and_an_endpoint(
    tool, tiny, photos, chat_server, tmp_path, capsys
) -> None:
    chat_server.reply = say_of_rexverse
    out = tmp_path / "rows.jsonl"
    detector = ["--detector", str(tiny.config), "--weights", str(tiny.weights), "--threshold", "0"]
    model = ["--backend", "openai", "--url", chat_server.url, "--model", "m", "--price", "1", "1"]
    command = ["rexverse", str(photos), str(out), *detector, *model, *SMALL_PICTURES]
    command += ["--regions", "2", "--dialogue", "1", "--detector-batch-size", "2"]
    tool.main(command)
    shown = capsys.readouterr()
    asked = len(chat_server.requests)
    assert f"rows.jsonl: 21 rows ({asked} requests, cost 0.0000)" in shown.out
    rows = lines(out)
    regions = [one for row in rows if row["task"] == "detect" for one in row["regions"]]
    assert asked == 3 * 2 + 2 * len(regions)
    assert {row["filename"] for row in rows} == {"0.png", "1.png", "2.png"}
    assert {one["phrase"] for row in rows for one in row["regions"]} <= {"dog", "red circle"}
    assert rows[-1]["conversations"][1]["value"] == (
        "<ground>A thing</ground><objects><obj0></objects>."
    )
    with pytest.raises(ConfigError, match=r"rows\.jsonl exists"):
        tool.main(command)
    tool.main(
        [*command, "--overwrite", "--tasks", "detect", "--cfg-options", "default_scope=llmdet"]
    )
    assert {row["task"] for row in lines(out)} == {"detect"}


def test_pictures_go_through_models_of_this_process_with_boxes_of_a_file(
    tool, photos, local_model, tmp_path, capsys
) -> None:
    """Nothing that models of random weights say is accepted, and all of it is counted."""
    header = PredictionHeader(model="tiny", classes=("dog",)).as_dict()
    found = {"image_id": 1, "boxes": [[0, 0, 20, 20]], "scores": [0.9], "labels": [0]}
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(found)}\n")
    images = [{"id": 1, "file_name": "1.png"}]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images}))
    boxes = ["--boxes", str(tmp_path / "p.jsonl"), "--boxes-of", str(tmp_path / "gt.json")]
    command = ["rexverse", str(photos), str(tmp_path / "rows.jsonl"), *boxes, *local_model]
    tool.main([*command, *SMALL_PICTURES, "--attempts", "1", "--screen"])
    shown = capsys.readouterr().out
    assert "rows.jsonl: 0 rows (3 requests" in shown
    assert "3  screening neither yes nor no, left out (first: 0.png)" in shown


MODEL = ("--backend", "openai", "--url", "http://localhost:1", "--model", "m")


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (("--boxes", "p.jsonl"), ConfigError, "--boxes needs --boxes-of"),
        (("--detector", "x", "--boxes-of", "gt.json"), ConfigError, "belongs to --boxes"),
        (("--boxes", "p.jsonl", "--boxes-of", "gt.json"), DataError, "cannot read p.jsonl"),
        (("--detector", "no/such.py"), ConfigError, "no/such"),
        (
            ("--detector", "x", "--prompts", "configs/grounding_dino_swin_t.py"),
            ConfigError,
            "has no object_wordings",
        ),
        (("--detector", "x", "--least-words", "11"), ConfigError, "expressions of 11 to 10 words"),
    ],
)
def test_what_does_not_go_together_is_said(
    tool, photos, root, tmp_path, monkeypatch, arguments, kind, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=sentence):
        tool.main(["rexverse", str(photos), "rows.jsonl", *MODEL, *arguments])


@pytest.mark.parametrize("name", ["rexverse", "rexverse_endpoints"])
def test_the_configs_name_a_model_for_each_role(root, name) -> None:
    config = load_config(root / "configs" / "data_engines" / f"{name}.py")
    roles = RexverseSettings().roles
    assert set(read_model_settings(config, roles)) == set(roles)
