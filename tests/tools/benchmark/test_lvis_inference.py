"""The benchmark of long class lists, at a size of seconds."""

from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.models import tiny_grounding_dino
from llmdet.testing.programs import load_program


def test_both_ways_find_the_same_and_only_the_original_runs_bert_again(
    root, tmp_path, monkeypatch, capsys
):
    tool = load_program(root / "tools/benchmark/lvis_inference.py")
    settings = {"chunked_size": 2, "limit_per": "chunk"}
    model = tiny_grounding_dino(tiny_bert(tmp_path), test_cfg=settings).requires_grad_(False)
    monkeypatch.setattr(tool, "build_detector", lambda _: model)
    batches, encode = [], model.language_model._embed
    monkeypatch.setattr(
        model.language_model,
        "_embed",
        lambda ids, *rest: batches.append(len(ids)) or encode(ids, *rest),
    )
    assert (
        tool.main(
            [
                "--images",
                "2",
                "--classes",
                "6",
                "--height",
                "64",
                "--width",
                "96",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    # Three prompts an image, one by one; ours once, together with padding.
    assert batches == [1, 1, 1, 4] + [1, 1, 1] * 2
    assert "scores differ" in capsys.readouterr().out
