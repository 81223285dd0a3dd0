"""Configs that fine-tune without forgetting: each trains two steps on toy sets."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.config import Config

from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.models import tiny_bert
from llmdet.datasets.toy.new_shapes import NEW_SHAPES, generate_new_shapes
from llmdet.engine import build_runner
from llmdet.registry import MODELS
from llmdet.testing.programs import load_program
from llmdet.utils.config import load_config, set_work_dir

TINY = ("lora", "decoder_only", "full_replay")


@pytest.fixture(scope="module")
def options(tmp_path_factory, root):
    """Where the data is, and weights of a detector that was not trained yet."""
    folder = tmp_path_factory.mktemp("finetune")
    toy = generate(folder / "toy", ToySettings(train=4, val=2, size=64, photographs=False))
    target = generate_new_shapes(folder / "new_shapes", train=6, val=2, size=64)
    settings = {
        "data_root": f"{target}/",
        "zero_shot_root": f"{toy}/",
        "lang_model_name": tiny_bert(folder / "bert"),
        "load_from": str(folder / "base.pth"),
        "max_iters": 2,
        "train_dataloader.batch_size": 2,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "val_dataloader.num_workers": 0,
        "val_dataloader.persistent_workers": False,
        "zero_shot_dataloader.batch_size": 2,
        "visualizer.vis_backends": [{"type": "LocalVisBackend"}],
        "default_hooks.visualization.draw": False,
        "default_hooks.checkpoint.save_best": None,
    }
    config = load_config(root / "configs/finetune/full.py", settings)
    torch.manual_seed(0)
    write_checkpoint(folder / "base.pth", MODELS.build(config.model).state_dict())
    return settings


def configured(root, name, options, work_dir):
    options = dict(options)
    if name == "full_replay":
        options["replay_root"] = options["zero_shot_root"]
    config = load_config(root / f"configs/finetune/{name}.py", options)
    set_work_dir(config, name, str(work_dir))
    config.experiment_name = work_dir.name + work_dir.parent.name
    return config


@pytest.fixture(scope="module")
def trained(root, options, tmp_path_factory):
    """Folder of a run of each config."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        # Formatting a config as a program takes longer than such a training, for each checkpoint.
        patch.setattr(Config, "pretty_text", property(lambda self: repr(self.to_dict())))
        for name in TINY:
            folders[name] = tmp_path_factory.mktemp(name)
            build_runner(configured(root, name, options, folders[name])).train()
    return folders


@pytest.mark.parametrize("name", TINY)
def test_a_config_trains_and_leaves_frozen_weights_as_they_were(trained, options, name):
    before = read_checkpoint(options["load_from"]).state_dict
    after = read_checkpoint(trained[name] / "iter_2.pth").state_dict
    after = {key.replace(".base_layer.", "."): value for key, value in after.items()}
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    if name == "lora":
        assert moved == set()
        learned = [value for key, value in after.items() if ".lora_B." in key]
        assert learned
        assert any(value.any() for value in learned)
    else:
        parts = {key.partition(".")[0] for key in moved}
        assert {"decoder", "bbox_head"} <= parts
        assert ("backbone" in parts) == ("encoder" in parts) == (name == "full_replay")


def test_reports_say_what_the_weights_are_worth(trained, options, root, tmp_path, capsys):
    reports = {
        name: json.loads((folder / "before_after.json").read_text())
        for name, folder in trained.items()
    }
    assert reports["lora"]["before"] == reports["full_replay"]["before"]
    report = reports["decoder_only"]
    assert report["iterations"] == 2
    assert report["before"]["target"].keys() == report["after"]["zero_shot"].keys()
    main = load_program(root / "tools/analysis/interpolate.py").main
    weights = [options["load_from"], str(trained["decoder_only"] / "iter_2.pth")]
    config = configured(root, "decoder_only", options, tmp_path)
    (tmp_path / "config.py").write_text(
        "".join(f"{key} = {value!r}\n" for key, value in config.to_dict().items())
    )
    main([*weights, "--alpha", "0,1", "--curve", str(tmp_path / "config.py")])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "alpha" in line]
    for row, when in zip(rows, ("before", "after"), strict=True):
        values = [report[when][data]["coco/bbox_mAP"] for data in ("target", "zero_shot")]
        assert [float(value) for value in row[2:]] == [round(value, 4) for value in values]


def test_a_quarter_of_the_images_is_replayed(root, options, tmp_path):
    config = configured(root, "full_replay", options, tmp_path)
    loader = build_runner(config).build_dataloader(config.train_dataloader, seed=0)
    target, replay = loader.dataset.datasets
    assert set(NEW_SHAPES) == set(target.metainfo["classes"])
    assert not set(NEW_SHAPES) & set(replay.metainfo["classes"])
    indices = [index for index, _ in zip(loader.batch_sampler.sampler, range(40), strict=False)]
    assert sum(index >= len(target) for index in indices) == 10
    assert {len(batch["inputs"]) for batch, _ in zip(loader, range(4), strict=False)} == {2}


@pytest.mark.parametrize("name", ["lora", "decoder_only", "full_replay"])
def test_the_real_size_differs_in_model_and_data_alone(root, name):
    tiny = load_config(root / f"configs/finetune/{name}.py")
    real = load_config(root / f"configs/finetune/{name}_swin_t.py")
    for setting in ("freeze_backbone", "freeze_lm"):
        assert real.model.get(setting) == tiny.model.get(setting)
    assert (real.model.get("tuning") or {}).get("parts") == (tiny.model.get("tuning") or {}).get(
        "parts"
    )
    assert real.train_dataloader.sampler == tiny.train_dataloader.sampler
    assert real.custom_hooks == tiny.custom_hooks
    assert real.get("load_missing") == tiny.get("load_missing")


def test_the_comparison_of_ways_is_a_table(root, options, tmp_path, capfd):
    benchmark = load_program(root / "tools/benchmark/finetune.py")
    toy = options["zero_shot_root"]
    arguments = [options["load_from"], options["data_root"], "--toy", toy, "--steps", "1"]
    arguments += ["--methods", "decoder_only", "--work-dir", str(tmp_path), "--cfg-options"]
    names = ("lang_model_name", "train_dataloader.batch_size", "zero_shot_dataloader.batch_size")
    benchmark.main([*arguments, *(f"{name}={options[name]}" for name in names)])
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [len(benchmark.HEAD) + 1] * 3
    state = read_checkpoint(options["load_from"]).state_dict
    trained = sum(v.numel() for k, v in state.items() if k.startswith(("decoder.", "bbox_head.")))
    assert rows[-1].startswith(f"| decoder_only | {trained:,} | 0.0 → 0.0 | 0.0 → 0.0 |")
