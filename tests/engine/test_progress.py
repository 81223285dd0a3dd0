"""The line of a training iteration: short, and its sums are those of the losses."""

import logging
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from mmengine.runner import Runner as MMEngineRunner

from llmdet.engine import build_runner
from llmdet.engine.logs import ROTATING_FILE
from llmdet.engine.progress import (
    images_of,
    loss_families,
    losses_by_task,
    training_line,
    training_note,
)
from llmdet.engine.runner import Runner
from llmdet.testing.line import line_config

VALUES = {
    "base_lr": 1e-4,
    "lr": 1e-4,
    "data_time": 0.1,
    "time": 0.4,
    "grad_norm": 3.25,
    "loss": 7.5,
    "loss_cls": 1.0,
    "d0.loss_cls": 0.5,
    "enc_loss_bbox": 2.0,
    "d3.dn_loss_bbox": 1.0,
    "dn_loss_cls": 1.0,
    "loss_lmm_image": 1.5,
    "d5.loss_lmm_region": 0.5,
    "images_per_second": 40.0,
    "iter": 50,
    "memory": 1200,
}


def test_losses_of_a_family_are_summed_over_layers_encoder_and_denoising():
    families = loss_families(VALUES)
    assert families == {"cls": 2.5, "bbox": 3.0, "lmm_image": 1.5, "lmm_region": 0.5}
    assert sum(families.values()) == VALUES["loss"]


def test_a_detector_alone_has_one_loss_in_the_line():
    values = {name: value for name, value in VALUES.items() if "lmm" not in name}
    assert losses_by_task(values) == {}
    assert "detection" not in training_line("Iter(train) [ 50/100]", values, None)


def test_the_note_beside_a_bar_has_loss_and_speed():
    assert training_note(VALUES) == "loss 7.500  40 images/s"
    assert training_note({"train/loss": 1.25}) == "loss 1.250"


def test_the_line_says_rate_rest_speed_and_losses():
    assert training_line("Iter(train) [ 50/100]", VALUES, 3725.9) == (
        "Iter(train) [ 50/100]  eta: 1:02:05  40 images/s (25% waiting for data)  loss: 7.5000  "
        "detection: 5.5000  language: 2.0000  grad_norm: 3.2500  lr: 1.00e-04  memory: 1200 MB"
    )
    assert training_line("Iter(train) [1/2]", {"iter": 1}, None) == "Iter(train) [1/2]"


@pytest.mark.parametrize(
    ("batch", "images"), [({"data_samples": [1, 2, 3]}, 3), ({"x": [1]}, 0), (None, 0)]
)
def test_images_of_a_batch_are_counted(batch, images):
    assert images_of(batch) == images


def test_the_log_of_a_run_rotates_and_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setitem(ROTATING_FILE, "maxBytes", 2000)
    monkeypatch.setattr(MMEngineRunner, "__init__", lambda self: None)
    runner = Runner()
    runner._log_dir, runner._experiment_name = str(tmp_path), f"rotating_{tmp_path.name}"
    log = tmp_path / "run.log"
    built = runner.build_logger(log_file=str(log))
    for number in range(500):
        logging.getLogger("llmdet.x").info("line %d", number)
    paths = sorted(tmp_path.glob("run.log*"))
    assert len(paths) == 1 + ROTATING_FILE["backupCount"]
    assert all(path.stat().st_size <= 2000 for path in paths)
    assert log.read_text().endswith("line 499\n")
    for handler in built.handlers:
        handler.close()


def test_weights_and_biases_gets_losses_rates_and_pictures_offline(tmp_path, monkeypatch):
    """The package is replaced: it is no dependency, and starts programs of its own."""
    wandb = MagicMock()
    wandb.__spec__ = object()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = line_config(tmp_path / "run", 2)
    config.default_scope = "llmdet"
    config.model.type, config.train_dataloader.dataset.type = "mmengine.Regression", "mmengine.Line"
    config.default_hooks.logger = dict(type="LoggerHook", interval=1)
    config.log_processor = dict(type="LogProcessor", by_epoch=False)
    backend = dict(type="WandbVisBackend", init_kwargs=dict(project="mine", mode="offline"))
    config.visualizer = dict(type="DetLocalVisualizer", vis_backends=[backend])
    runner = build_runner(config)
    runner.visualizer.add_image("val_img", np.zeros((4, 4, 3), np.uint8), 1)
    runner.train()
    assert wandb.init.call_args.kwargs["mode"] == "offline"
    logged = [call.args[0] for call in wandb.log.call_args_list]
    assert "val_img" in logged[0]
    assert [values["iter"] for values in logged[1:]] == [1, 2]
    assert all(values["loss"] > 0 and values["lr"] > 0 for values in logged[1:])
    wandb.join.assert_called_once()
