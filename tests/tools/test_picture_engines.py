"""The commands of the engines that begin with bare pictures, with a tiny detector."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from llmdet.data_engines.grand.settings import roles_up_to
from llmdet.data_engines.models import read_model_settings
from llmdet.data_engines.rexverse import RexverseSettings
from llmdet.datasets.masks import decode_mask
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.predictions import PredictionHeader
from llmdet.models.vision.sam import build_sam
from llmdet.testing.chat import Reply, completion, tiny_llava
from llmdet.testing.programs import load_program
from llmdet.testing.region_models import TINY_SAM, tiny_depth
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
        (("--boxes", "p.jsonl"), ConfigError, "--boxes goes with --boxes-of"),
        (("--detector", "x", "--boxes-of", "gt.json"), ConfigError, "--boxes goes with --boxes-of"),
        (("--boxes", "p.jsonl", "--boxes-of", "gt.json"), DataError, "cannot read p.jsonl"),
        (("--detector", "no/such.py"), ConfigError, "no/such"),
        (
            ("--detector", "x", "--prompts", "configs/grounding_dino_swin_t.py"),
            ConfigError,
            "has no object_wordings",
        ),
        (("--detector", "x", "--least-words", "11"), ConfigError, "expressions of 11 to 10 words"),
        ((), ConfigError, "Name what finds boxes"),
    ],
)
def test_what_does_not_go_together_is_said(
    tool, photos, root, tmp_path, monkeypatch, arguments, kind, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=sentence):
        tool.main(["rexverse", str(photos), "rows.jsonl", *MODEL, *arguments])


@pytest.mark.parametrize("name", ["rexverse", "rexverse_endpoints", "grand", "grand_endpoints"])
def test_the_configs_name_a_model_for_each_role(root, name) -> None:
    config = load_config(root / "configs" / "data_engines" / f"{name}.py")
    roles = roles_up_to(4) if "grand" in name else RexverseSettings().roles
    assert set(read_model_settings(config, roles)) == set(roles)


def say_of_grand(body: dict) -> Reply:
    text = body["messages"][-1]["content"][-1]["text"]
    answers = {
        "List the kinds": "dog, red circle",
        "This is known of": "A dog stands on a red circle. An elephant sleeps.",
        "What kind of place": "outdoor: field",
        "Describe the": "a blurred thing of many colours",
        "These objects of the picture": "[The first](0) lies on [the second](1).",
        "Write the description anew": "A dog stands on a red circle.",
        "beyond it": "Dogs have lived with people for a long time.",
        "These objects of a picture": "[The dog](0) can be walked.",
    }
    said = (said for words, said in answers.items() if words in text)
    return 200, completion(next(said, "A dog stands before a red circle."))


@pytest.fixture(scope="module")
def measures(tmp_path_factory) -> list[str]:
    """Arguments for a SAM and a model of depth of random weights."""
    sam, depth = (str(tmp_path_factory.mktemp(name)) for name in ("sam", "depth"))
    build_sam(TINY_SAM).save_pretrained(sam)
    return ["--sam", sam, "--depth", tiny_depth(Path(depth))]


def test_pictures_are_annotated_by_detector_sam_depth_and_an_endpoint(
    tool, tiny, photos, measures, chat_server, root, tmp_path, capsys
) -> None:
    chat_server.reply = say_of_grand
    out = tmp_path / "grand"
    model = dict(backend="openai", model="m", url=chat_server.url, batch_size=4)
    (tmp_path / "models.py").write_text(f"models = {dict.fromkeys(roles_up_to(4), model)}\n")
    detector = ["--detector", str(tiny.config), "--weights", str(tiny.weights), "--threshold", "0"]
    command = ["grand", str(photos), str(out), *detector, *measures, "--device", "cpu"]
    command += ["--config", str(tmp_path / "models.py"), "--min-side", "2", "--regions", "3"]
    command += ["--dense-words", "3", "--context-words", "3", "--overlap", "0.6"]
    tool.main([*command, "--up-to", "2"])
    shown = capsys.readouterr().out
    assert "level_1.jsonl: 3 rows" in shown
    assert "level_2.jsonl: 3 rows" in shown
    assert not (out / "level_3.jsonl").exists()
    tool.main(command)
    shown = capsys.readouterr().out
    assert "level_2.jsonl" not in shown
    assert "annotations: 3 rows" in shown
    record = json.loads((out / "annotations" / "1.json").read_text())["1.png"]
    assert record == lines(out / "level_4.jsonl")[1]
    for one in record["objects"]:
        assert set(one["labels"]) <= {"dog", "red circle"}
        assert decode_mask(one["segmentation"], (48, 64)).any()
        assert 0 <= one["depth"] <= 1
    assert record["dense_caption"]["caption"].startswith("A dog stands on a red circle.")
    assert record["provenance"]["objects.segmentation"]["sam"].startswith("of hash")
    assert record["provenance"]["relationships"]["url"] == chat_server.url
    asked = len(chat_server.requests)
    tool.main(command)
    assert len(chat_server.requests) == asked
    rows = tmp_path / "rows.jsonl"
    convert = load_program(root / "tools" / "convert" / "data.py")
    paths = [str(out / "annotations"), str(rows)]
    convert.main([*paths, "--from", "grand", "--to", "regions", "--task", "gcg"])
    assert "<p>dog</p><mask:" in rows.read_text()
    with pytest.raises(ConfigError, match=r"level_1.*begun with regions 3 \(now 2\)"):
        tool.main([*command, "--regions", "2"])


def test_all_of_grand_runs_in_this_process(
    tool, tiny, photos, measures, local_model, tmp_path, capsys
) -> None:
    """What models of random weights say is not accepted; objects are found all the same."""
    (tmp_path / "names.txt").write_text("dog\nred circle\n")
    out = tmp_path / "grand"
    detector = ["--detector", str(tiny.config), "--weights", str(tiny.weights), "--threshold", "0"]
    command = ["grand", str(photos), str(out), *detector, *measures, *local_model]
    command += ["--classes", str(tmp_path / "names.txt"), "--attempts", "1", "--regions", "2"]
    tool.main([*command, "--device", "cpu", "--min-side", "2", "--dense-words", "1"])
    assert "annotations: 3 rows" in capsys.readouterr().out
    records = [json.loads(file.read_text()) for file in (out / "annotations").iterdir()]
    assert all(0 < len(one["objects"]) <= 2 for each in records for one in each.values())
