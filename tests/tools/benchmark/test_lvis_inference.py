"""The benchmark of long class lists, at a size of seconds."""

import pytest

from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.testing.models import tiny_grounding_dino
from llmdet.testing.programs import load_program


def test_both_ways_find_the_same_and_only_the_original_runs_bert_again(
    root, tmp_path, monkeypatch, capsys
):
    tool = load_program(root / "tools/benchmark/lvis_inference.py")
    model = tiny_grounding_dino(tiny_bert(tmp_path))
    monkeypatch.setattr(tool, "CHUNK", 2)
    monkeypatch.setattr(tool, "build_detector", lambda *_: (model, None))
    batches, encode = [], model.language_model._embed
    monkeypatch.setattr(
        model.language_model,
        "_embed",
        lambda ids, *rest: batches.append(len(ids)) or encode(ids, *rest),
    )
    size = ["--height", "64", "--width", "96", "--device", "cpu"]
    assert tool.main(["--images", "2", "--classes", "6", *size]) == 0
    # Three prompts an image, one by one; ours once, together with padding.
    assert batches == [1, 1, 1, 4] + [1, 1, 1] * 2
    assert "at most; 3 prompts at a time" in capsys.readouterr().out


def test_as_many_classes_as_lvis_has_can_be_named_and_no_more_than_there_are(root):
    tool = load_program(root / "tools/benchmark/lvis_inference.py")
    assert len(set(tool.class_names(1203))) == 1203
    with pytest.raises(ConfigError, match=r"--classes 1000000: choose 1 to \d+"):
        tool.class_names(1_000_000)
