"""Settings that mmengine would ignore in silence."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from llmdet.engine.settings import check_settings
from llmdet.errors import ConfigError
from llmdet.utils.config import load_config

FIXED_AP = dict(type="LVISFixedAPMetric", ann_file="lvis.json")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(load_form="x.pth"), "'load_form', which nothing reads; did you mean 'load_from'"),
        (dict(optim_wraper={}), "did you mean 'optim_wrapper'"),
        (dict(load_mising=["lmm"]), "did you mean 'load_missing'"),
        (dict(default_hooks=dict(chekpoint={})), "default_hooks.*did you mean 'checkpoint'"),
        (dict(train_dataloader=dict(num_worker=2)), "train_dataloader.*did you mean 'num_workers'"),
        (dict(env_cfg=dict(cudnn_bench=True)), "env_cfg.*did you mean 'cudnn_benchmark'"),
        (dict(env_cfg=dict(mp_cfg=dict(start_method="fork"))), "did you mean 'mp_start_method'"),
        (dict(auto_scale_lr=dict(base_batchsize=8)), "did you mean 'base_batch_size'"),
        (dict(optim_wrapper=dict(clip_grad=dict(max_nrm=1))), "clip_grad.*did you mean 'max_norm'"),
        (
            dict(default_hooks=dict(checkpoint=dict(intervall=3))),
            "default_hooks.checkpoint.*did you mean 'interval'",
        ),
        (dict(randomness=dict(sed=1)), "randomness.*did you mean 'seed'"),
    ],
)
def test_a_misspelt_key_is_an_error_that_names_the_nearest(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_settings(Config(settings))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_dataloader.batch_size", -1),
        ("train_dataloader.batch_size", 1.5),
        ("val_dataloader.num_workers", -1),
        ("optim_wrapper.optimizer.lr", "abc"),
        ("optim_wrapper.optimizer.lr", float("nan")),
        ("optim_wrapper.accumulative_counts", 0),
        ("optim_wrapper.optimizer.weight_decay", "abc"),
        ("optim_wrapper.clip_grad.max_norm", -3),
        ("train_cfg.max_iters", -1),
        ("train_cfg.max_epochs", "abc"),
        ("train_cfg.val_interval", 0),
        ("randomness.seed", "abc"),
        ("default_hooks.checkpoint.interval", "abc"),
        ("default_hooks.logger.interval", 0),
    ],
)
def test_a_number_out_of_range_is_named(key, value):
    config = Config()
    config.merge_from_dict({key: value})
    with pytest.raises(ConfigError, match=rf"{key} is {value!r}; give a (whole )?number"):
        check_settings(config)


def test_checkpoints_may_follow_validations():
    check_settings(Config(dict(default_hooks=dict(checkpoint=dict(interval="validation")))))


def test_variables_of_a_config_are_left_alone():
    check_settings(Config(dict(dims=3, bert="b", max_iters=4, train_pipeline=[], fall=600)))


def test_all_configs_of_the_project_pass(root):
    others = {"_base_", "data_engines"}  # parts of configs, and what no runner reads
    paths = [path for path in root.glob("configs/**/*.py") if not others & set(path.parts)]
    assert len(paths) > 30
    for path in paths:
        check_settings(load_config(path))


def test_the_configs_of_mmdet_that_users_extend_pass(tmp_path):
    path = tmp_path / "mine.py"
    base = "mmdet::mm_grounding_dino/coco/grounding_dino_swin-t_finetune_16xb4_1x_coco.py"
    path.write_text(f"_base_ = '{base}'\ndefault_scope = 'llmdet'\n")
    check_settings(load_config(path))


@pytest.mark.parametrize("evaluator", ["val_evaluator", "test_evaluator"])
def test_fixed_ap_of_detections_limited_per_image_is_refused(evaluator):
    model = dict(type="LLMDet", test_cfg=dict(max_per_img=300))
    config = Config({"model": model, evaluator: [dict(type="CocoMetric"), FIXED_AP]})
    with pytest.raises(ConfigError, match=f"{evaluator}: LVISFixedAP.*limit_per='chunk'"):
        check_settings(config)
    config.model.test_cfg.limit_per = "chunk"
    check_settings(config)


def test_it_is_refused_inside_test_time_augmentation_and_sets_too():
    module = dict(type="GroundingDINO", test_cfg=dict(limit_per="image"))
    sets = dict(type="BenchmarkEvaluator", metrics=dict(minival=[FIXED_AP]))
    config = dict(model=dict(type="GroundingTTAModel", module=module), test_evaluator=sets)
    with pytest.raises(ConfigError, match="limit_per='chunk'"):
        check_settings(Config(config))


def test_fixed_ap_of_merged_views_that_are_cut_per_image_is_refused():
    module = dict(type="LLMDet", test_cfg=dict(limit_per="chunk"))
    merging = dict(type="mmdet.DetTTAModel", tta_cfg=dict(max_per_img=100), module=module)
    config = Config(dict(model=merging, test_evaluator=FIXED_AP))
    with pytest.raises(ConfigError, match=r"DetTTAModel cuts .*tta_model=.*GroundingTTAModel"):
        check_settings(config)
    config.test_evaluator = dict(type="CocoMetric")
    check_settings(config)
    config.model.type = "GroundingTTAModel"
    config.test_evaluator = FIXED_AP
    check_settings(config)


def test_other_models_have_limits_of_their_own():
    check_settings(Config(dict(model=dict(type="FasterRCNN"), test_evaluator=FIXED_AP)))


def test_a_log_that_needs_a_package_that_is_missing_is_refused(monkeypatch):
    backends = [dict(type="LocalVisBackend"), dict(type="WandbVisBackend")]
    config = Config(dict(visualizer=dict(type="DetLocalVisualizer", vis_backends=backends)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        check_settings(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_settings(config)
