"""Training runs of a toy model: resume, foreign weights, logs, processes without CUDA."""

import logging
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import llmdet.engine as engine
from llmdet.checkpoint import read_checkpoint
from llmdet.engine import build_runner
from llmdet.errors import CheckpointError, ConfigError
from llmdet.registry import TRANSFORMS
from llmdet.testing.line import Regression
from llmdet.testing.line import line_config as config
from llmdet.utils.build import checked_builds


class HeadedRegression(Regression):
    """Has keys that are recognised as a detector's."""

    def __init__(self) -> None:
        super().__init__()
        self.bbox_head = Regression()
        del self.linear

    def forward(self, *points: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        return self.bbox_head(*points, mode=mode)


@pytest.fixture(autouse=True)
def registered():
    MODELS.register_module(name="HeadedRegression", module=HeadedRegression, force=True)


def test_training_writes_checkpoints_and_resume_continues_counting(tmp_path):
    build_runner(config(tmp_path / "run")).train()
    checkpoint = engine.latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.name == "iter_4.pth"

    again = config(tmp_path / "run", max_iters=6, load_from=str(checkpoint), resume=True)
    again.experiment_name = f"again_{tmp_path.name}"
    runner = build_runner(again)
    runner.train()
    assert runner.iter == 6
    # The log history came back: four values of the first run and two of the second.
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 6
    assert runner.message_hub.get_scalar("train/loss").min() >= 0
    state = engine.read_training_state(tmp_path / "run" / "iter_6.pth")
    assert state["optimizer"]["state"][0]["step"].item() == 6
    assert state["param_schedulers"][0]["last_step"] == 6


def test_resume_restores_optimizer_and_weights_to_the_bit(tmp_path):
    build_runner(config(tmp_path / "a", max_iters=2)).train()
    saved = engine.read_training_state(tmp_path / "a" / "iter_2.pth")
    runner = build_runner(
        config(tmp_path / "b", load_from=str(tmp_path / "a" / "iter_2.pth"), resume=True)
    )
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.load_or_resume()
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])
    moments = runner.optim_wrapper.state_dict()["state"][0]
    assert torch.equal(moments["exp_avg_sq"], saved["optimizer"]["state"][0]["exp_avg_sq"])


def averaged(work_dir, **changes) -> Config:
    hook = dict(type="EMAHook", momentum=0.5)
    return config(work_dir, custom_hooks=[hook], **changes)


def test_the_average_of_an_ema_run_is_what_is_read_back(tmp_path):
    runner = build_runner(averaged(tmp_path / "run"))
    runner.train()
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    average = hook.ema_model.module.linear.weight
    raw = runner.model.linear.weight
    assert not torch.equal(average, raw)
    read = read_checkpoint(tmp_path / "run" / "iter_4.pth")
    assert torch.equal(read.state_dict["linear.weight"], average)


def test_an_ema_run_resumes_raw_weights_and_average(tmp_path):
    whole = build_runner(averaged(tmp_path / "whole", max_iters=4))
    whole.train()
    checkpoint = str(tmp_path / "whole" / "iter_2.pth")
    settings = averaged(tmp_path / "rest", max_iters=4, load_from=checkpoint, resume=True)
    settings.train_dataloader.sampler.shuffle = False
    runner = build_runner(settings)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook("before_run")
    runner.load_or_resume()
    content = engine.read_training_state(checkpoint)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    assert torch.equal(
        runner.model.linear.weight, content["ema_state_dict"]["module.linear.weight"]
    )
    assert torch.equal(hook.ema_model.module.linear.weight, content["state_dict"]["linear.weight"])
    assert hook.ema_model.steps == 2


def test_the_ema_copy_gets_the_weights_that_a_run_starts_from(tmp_path):
    weights = {"bbox_head.linear.weight": torch.full((1, 1), 7.0)}
    weights["bbox_head.linear.bias"] = torch.full((1,), 8.0)
    torch.save({"state_dict": weights}, tmp_path / "start.pth")
    settings = averaged(tmp_path / "run", load_from=str(tmp_path / "start.pth"))
    settings.model = dict(type="HeadedRegression")
    runner = build_runner(settings)
    runner.call_hook("before_run")
    runner.load_or_resume()
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    assert hook.ema_model.module.bbox_head.linear.weight.item() == 7


def test_text_in_a_checkpoint_is_not_executed_on_resume(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=2)).train()
    path = tmp_path / "run" / "iter_2.pth"
    content = torch.load(path, weights_only=False)
    content["meta"]["config"] = f"open({str(tmp_path / 'executed')!r}, 'w')"
    torch.save(content, path)
    runner = build_runner(config(tmp_path / "again", load_from=str(path), resume=True))
    runner.train()
    assert runner.iter == 4
    assert not (tmp_path / "executed").exists()


def test_resuming_weights_of_another_shape_is_refused(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=2)).train()
    path = tmp_path / "run" / "iter_2.pth"
    content = torch.load(path, weights_only=False)
    content["state_dict"]["linear.weight"] = torch.zeros(3, 3)
    torch.save(content, path)
    runner = build_runner(config(tmp_path / "again", load_from=str(path), resume=True))
    with pytest.raises(CheckpointError, match=r"linear\.weight \(3, 3\), model \(1, 1\)"):
        runner.train()


def test_resuming_an_optimizer_of_another_kind_is_refused(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=2)).train()
    path = tmp_path / "run" / "iter_2.pth"
    content = torch.load(path, weights_only=False)
    content["optimizer"]["param_groups"] *= 2
    torch.save(content, path)
    runner = build_runner(config(tmp_path / "again", load_from=str(path), resume=True))
    with pytest.raises(CheckpointError, match=r"optimizer of .*iter_2.pth.*load_from"):
        runner.train()


def test_weights_alone_cannot_be_resumed(tmp_path):
    torch.save({"state_dict": Regression().state_dict()}, tmp_path / "weights.pth")
    settings = config(tmp_path, load_from=str(tmp_path / "weights.pth"), resume=True)
    with pytest.raises(CheckpointError, match="has no message_hub, meta"):
        build_runner(settings).train()


class Talking(BaseModel):
    """A frozen language model with LoRA that learns to make little of what it reads."""

    def __init__(self, model: str) -> None:
        super().__init__()
        from llmdet.models.language.language_model import LanguageModel

        self.lmm = LanguageModel(model, dtype="float32", lora={"r": 2, "alpha": 4})

    def forward(self, *points: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        tokens = (torch.stack(points) * 10).long()
        return {"loss": self.lmm.causal_lm(tokens).logits.square().mean()}


def test_a_run_whose_frozen_language_model_is_not_saved_resumes_to_the_bit(tmp_path):
    from llmdet.datasets.toy.models import tiny_qwen

    MODELS.register_module(name="Talking", module=Talking, force=True)
    model = dict(type="Talking", model=tiny_qwen(tmp_path / "qwen"))
    sampler = dict(type="DefaultSampler", shuffle=False)
    data = dict(dataset=dict(type="Line"), batch_size=4, num_workers=0, sampler=sampler)
    settings = dict(model=model, train_dataloader=data)
    whole = build_runner(config(tmp_path / "whole", **settings))
    whole.train()
    state = engine.read_training_state(tmp_path / "whole" / "iter_2.pth")
    assert all(".lora_" in key for key in state["state_dict"])
    assert len(state["optimizer"]["state"]) == len(state["state_dict"])

    path = str(tmp_path / "whole" / "iter_2.pth")
    rest = build_runner(config(tmp_path / "rest", load_from=path, resume=True, **settings))
    rest.train()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[key]), key


class Bomb:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "payload": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="execute code"):
        engine.read_training_state(tmp_path / "bomb.pth")


def test_mmengines_own_loading_refuses_it_too(tmp_path):
    from mmengine.runner.checkpoint import load_checkpoint

    torch.save({"state_dict": {}, "payload": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="execute code"):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / "bomb.pth"))


def test_a_truncated_checkpoint_is_called_damaged(tmp_path):
    torch.save({"state_dict": {"w": torch.rand(100, 100)}}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pth.*damaged"):
        engine.read_training_state(tmp_path / "half.pth")


def test_latest_checkpoint_of_a_new_folder_is_none(tmp_path):
    assert engine.latest_checkpoint(tmp_path) is None


def test_latest_checkpoint_that_vanished_is_named(tmp_path):
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_9.pth"))
    with pytest.raises(CheckpointError, match=r"iter_9\.pth.*--resume FILE"):
        engine.latest_checkpoint(tmp_path)


def test_an_unknown_type_is_answered_with_its_nearest_match(tmp_path):
    with pytest.raises(ConfigError, match=r"'Regresion'.*did you mean 'Regression'"):
        build_runner(config(tmp_path, model=dict(type="Regresion")))


def test_an_unknown_setting_is_answered_with_its_nearest_match(tmp_path):
    hook = dict(type="EarlyStoppingHook", monitor="loss", patiense=5)
    with pytest.raises(ConfigError, match=r"EarlyStoppingHook.*'patiense'.*'patience'"):
        build_runner(config(tmp_path, custom_hooks=[hook]))


def test_settings_of_every_kind_of_part_are_checked(tmp_path):
    wrong = {
        "param_scheduler": dict(type="LinearLR", start_facter=0.1),
        "optim_wrapper": dict(type="OptimWrapper", optimizer=dict(type="AdamW", lrr=0.1)),
        "train_cfg": dict(type="IterBasedTrainLoop", max_iter=3),
        "log_processor": dict(type="LogProcessor", window=5),
    }
    meant = {"param_scheduler": "start_factor", "optim_wrapper": "lr"}
    meant |= {"train_cfg": "max_iters", "log_processor": "window_size"}
    for name, settings in wrong.items():
        with pytest.raises(ConfigError, match=f"did you mean '{meant[name]}'"), checked_builds():
            build_runner(config(tmp_path, **{name: settings})).train()


def test_a_part_without_type_and_one_without_a_needed_setting_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Config of a hook lacks its type: it has monitor"):
        build_runner(config(tmp_path, custom_hooks=[dict(monitor="loss")]))
    with pytest.raises(ConfigError, match=r"Config of EarlyStoppingHook: it needs monitor"):
        build_runner(config(tmp_path, custom_hooks=[dict(type="EarlyStoppingHook")]))


def test_what_a_model_passes_to_its_parent_is_checked(tmp_path):
    model = dict(type="LLMDet", num_querys=5)
    with pytest.raises(ConfigError, match=r"LLMDet: .*'num_querys'; did you mean 'num_queries'"):
        build_runner(config(tmp_path, default_scope="llmdet", model=model))


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (dict(optim_wrapper=dict(optimizer=dict(type="AdamW", betas=3))), "of AdamW: its settings"),
        (dict(param_scheduler=dict(type="LinearLR", start_factor=7)), "of LinearLR: its settings"),
    ],
)
def test_a_value_that_a_part_cannot_take_is_named_with_it(tmp_path, part, sentence):
    with pytest.raises(ConfigError, match=sentence), checked_builds():
        build_runner(config(tmp_path, **part)).train()


def test_what_a_transform_or_hook_of_ours_passes_to_its_parent_is_checked():
    init_default_scope("llmdet")
    with pytest.raises(ConfigError, match=r"'backend'.*; did you mean"), checked_builds():
        TRANSFORMS.build(dict(type="LoadImageFromFile", backend="x"))
    with checked_builds():
        TRANSFORMS.build(dict(type="LoadImageFromFile", imdecode_backend="pillow"))


def test_a_defect_inside_a_part_keeps_its_own_error(tmp_path):
    class Broken(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            {}["no such key"]

        def forward(self) -> None:
            pass

    MODELS.register_module(name="Broken", module=Broken, force=True)
    with pytest.raises(KeyError, match="no such key"):
        build_runner(config(tmp_path, model=dict(type="Broken")))


def test_messages_of_llmdet_reach_the_runs_log_file(tmp_path):
    runner = build_runner(config(tmp_path / "logged"))
    logging.getLogger("llmdet.somewhere").info("a message of ours")
    log = next(Path(runner.log_dir).glob("*.log"))
    assert "a message of ours" in log.read_text()


def test_a_run_that_resumes_with_another_schedule_says_which_one_goes_on(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=2)).train()
    schedule = dict(type="LinearLR", start_factor=0.1, end=20, by_epoch=False)
    settings = config(tmp_path / "run", max_iters=3, resume=True, param_scheduler=schedule)
    settings.experiment_name = f"longer_{tmp_path.name}"
    runner = build_runner(settings)
    runner.train()
    log = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "schedule of the checkpoint goes on, which ends at iteration 10, and not" in log
    assert runner.param_schedulers[0].end == 10


def test_the_config_beside_the_weights_is_that_of_the_training(tmp_path):
    runner = build_runner(config(tmp_path / "run", max_iters=2))
    assert not list((tmp_path / "run").glob("*.py"))  # a test would end here
    assert len(list((tmp_path / "run").glob("*/*.py"))) == 1
    runner.train()
    (written,) = (tmp_path / "run").glob("*.py")
    assert "max_iters=2" in written.read_text()


def test_a_run_writes_its_config_as_a_readable_program(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=4)).train()
    written = {path.read_text() for path in (tmp_path / "run").rglob("*.py")}
    state = engine.read_training_state(tmp_path / "run" / "iter_4.pth")
    assert {state["meta"]["cfg"]} == written
    (text,) = written
    expected = config(tmp_path / "run", max_iters=4)
    assert Config.fromstring(text, ".py").to_dict() == expected.to_dict()
    assert "train_cfg = dict(max_iters=4, type='IterBasedTrainLoop', val_interval=100)\n" in text
