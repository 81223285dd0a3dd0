"""A test of several sets writes a file per set and continues where it was interrupted."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict

from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine import build_runner
from llmdet.engine.testing import write_predictions
from llmdet.evaluation.predictions import read_predictions
from llmdet.testing.benchmarks import write_miniature
from llmdet.testing.models import tiny_config

CONFIG = Path(__file__).parents[2] / "configs" / "val" / "flickr30k_swin_t.py"
TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler")
VALIDATION = ("val_dataloader", "val_cfg", "val_evaluator")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_miniature("flickr30k", tmp_path)
    torch.save({}, "weights.pth")
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(dict.fromkeys((*TRAINING, *VALIDATION, "visualizer")))
    config._cfg_dict["model"] = ConfigDict(tiny_config(tiny_bert("bert")))
    for dataset in config.test_dataloader.dataset.sets.values():
        dataset.pipeline[1].scale = (64, 96)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.default_hooks = {"logger": {"type": "LoggerHook"}}
    config.work_dir, config.load_from = "work", "weights.pth"
    write_predictions(config, "preds.jsonl")
    config.load_from = None
    return config


def run(config, monkeypatch):
    """Metrics, and the number of batches that the model predicted."""
    runner = build_runner(config)
    batches = []
    predict = runner.model.test_step

    def counted(batch):
        batches.append(batch)
        return predict(batch)

    monkeypatch.setattr(runner.model, "test_step", counted)
    return runner.test(), len(batches)


def test_only_images_that_are_missing_in_their_set_are_predicted_again(config, monkeypatch):
    first, batches = run(config, monkeypatch)
    assert batches == 2
    assert {file.name for file in Path("preds").iterdir()} == {"val.jsonl", "test.jsonl"}
    assert run(config, monkeypatch) == (first, 0)
    Path("preds/test.jsonl").unlink()
    _, batches = run(config, monkeypatch)
    assert batches == 1
    assert [image.image_id for image in read_predictions("preds/test.jsonl")[1]] == [1]
