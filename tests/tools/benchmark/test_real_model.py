"""The benchmark of refined expressions: its data, what is not repeated, and its table."""

import json

import pytest
import torch
from mmengine.dataset import pseudo_collate

from llmdet.datasets.inspection import build_dataset
from llmdet.registry import MODELS
from llmdet.testing.programs import load_program
from llmdet.utils.config import load_config

SETTINGS = {"images": 16, "val_images": 2, "broken": 0.6}


@pytest.fixture(scope="module")
def benchmark(root):
    return load_program(root / "tools/benchmark/real_model.py")


@pytest.fixture(scope="module")
def data(benchmark, tmp_path_factory):
    """The folder of a small set, and its shares."""
    folder = tmp_path_factory.mktemp("data")
    return folder, benchmark.write_data(folder, SETTINGS)


def test_the_agent_makes_raw_expressions_truer(benchmark, data):
    folder, shares = data
    assert shares["true"] == {"expressions": 16, "true": 1}
    assert shares["raw"]["true"] < shares["refined"]["true"]
    assert shares["refined"]["expressions"] <= 16
    before = (folder / "made.json").stat().st_mtime_ns
    assert benchmark.write_data(folder, SETTINGS) == shares
    assert (folder / "made.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="has data of"):
        benchmark.write_data(folder, {**SETTINGS, "images": 17})


def test_the_config_trains_on_each_kind_and_asks_for_descriptions_one_by_one(benchmark, data, root):
    folder, _ = data
    for kind in benchmark.KINDS:
        options = {"data_root": f"{folder}/", "train_file": f"train_{kind}.jsonl"}
        config = load_config(root / benchmark.CONFIG, options)
        dataset = build_dataset(config)
        assert dataset.ann_file == f"{folder}/train_{kind}.jsonl"
    batch = pseudo_collate([dataset[0], dataset[1]])
    model = MODELS.build(config.model).train()
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode="loss"))
    assert losses.isfinite()
    asked = build_dataset(config, "test")[0]
    with torch.no_grad():
        (found,) = model.eval().test_step(pseudo_collate([asked]))
    assert len(found.grounding.prompt.names) > 5
    assert model.test_cfg.chunked_size == 1


def test_the_table_has_means_over_seeds_in_percent(benchmark):
    shares = {"raw": {"expressions": 2000, "true": 0.412}}
    runs = [{"relation, D3": 0.1}, {"relation, D3": 0.2}]
    table = benchmark.report(shares, {"raw": runs}).strip().splitlines()
    assert table[0] == "| trained on | expressions | true | relation, D3 |"
    assert table[2] == "| raw | 2,000 | 41.2 | 15.0 ± 7.1 |"


def test_what_was_trained_and_measured_is_not_repeated(benchmark, data, tmp_path, monkeypatch):
    folder, _ = data
    commands = []

    def run(command, log):
        commands.append(command[0])
        if command[0] == "tools/train.py":
            (tmp_path / "last_checkpoint").write_text("iter_3.pth")
        else:
            header = {"format": "llmdet-predictions", "version": 2, "model": "m"}
            rows = [{"image_id": i, "boxes": [], "scores": [], "labels": []} for i in (1, 2)]
            text = "".join(json.dumps(row | {"category_ids": []}) + "\n" for row in rows)
            (tmp_path / "predictions.jsonl").write_text(json.dumps(header) + "\n" + text)

    monkeypatch.setattr(benchmark, "run", run)
    for _ in range(2):
        checkpoint = benchmark.train(tmp_path, [])
        values = benchmark.measure(tmp_path, checkpoint, folder)
    assert commands == ["tools/train.py", "tools/test.py"]
    assert checkpoint == tmp_path / "iter_3.pth"
    assert set(values.values()) == {0}
    assert len(values) == 8
