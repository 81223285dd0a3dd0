"""Schedules follow the length of a run, and published ones stay as they are."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from llmdet.engine.schedule import fit_schedule, schedule_ends
from llmdet.errors import ConfigError
from llmdet.utils.config import load_config


def schedule(max_iters, *parts, length=1000):
    return Config(
        dict(
            train_cfg=dict(max_iters=max_iters), param_scheduler=list(parts), schedule_length=length
        )
    )


def warm_up(end=100):
    return dict(type="LinearLR", by_epoch=False, begin=0, end=end)


def steps(end=1000):
    return dict(type="MultiStepLR", by_epoch=False, begin=0, end=end, milestones=[800, 900])


def test_warm_up_and_milestones_keep_their_share_of_the_run():
    config = schedule(50, warm_up(), steps())
    assert "1,000 iterations is fitted to 50" in fit_schedule(config)
    first, second = config.param_scheduler
    assert repr((first.begin, first.end)) == "(0, 5)"  # whole numbers
    assert (second.end, second.milestones) == (50, [40, 45])
    assert fit_schedule(config) is None  # it is written for this length now


def test_a_run_of_one_iteration_has_a_schedule():
    config = schedule(1, warm_up(), dict(steps(), begin=500))
    fit_schedule(config)
    assert all(part.begin < part.end for part in config.param_scheduler)


def test_epochs_are_stretched_as_fractions():
    cosine = dict(type="CosineAnnealingLR", by_epoch=True, begin=0.25, end=1, T_max=0.75)
    cosine["convert_to_iter_based"] = True
    config = Config(dict(train_cfg=dict(max_epochs=2), param_scheduler=[cosine], schedule_length=1))
    assert "1 epochs is fitted to 2" in fit_schedule(config)
    (part,) = config.param_scheduler
    assert (part.begin, part.end, part.T_max) == (0.5, 2, 1.5)


@pytest.mark.parametrize("by_iteration", [False, True])
def test_steps_at_epochs_are_taken_in_a_run_of_another_length(by_iteration):
    decay = dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11])
    decay["convert_to_iter_based"] = by_iteration
    config = Config(dict(train_cfg=dict(max_epochs=8), param_scheduler=[decay], schedule_length=12))
    fit_schedule(config)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (part,) = config.param_scheduler
    scheduler = PARAM_SCHEDULERS.build(
        part, default_args=dict(optimizer=optimizer, epoch_length=10)
    )
    rates = []
    for _ in range(80 if by_iteration else 8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert sorted(set(rates), reverse=True) == pytest.approx([1, 0.1, 0.01])
    assert rates.count(1) == (50 if by_iteration else 5)


@pytest.mark.parametrize(
    "parts", [(warm_up(),), (warm_up(), steps(end=50)), (dict(type="ConstantLR", by_epoch=True),)]
)
def test_a_schedule_of_the_users_own_stays(parts):
    config = schedule(50, *parts)
    before = config.to_dict()
    assert fit_schedule(config) is None
    assert config.to_dict() == before


@pytest.mark.parametrize(
    "odd", [5, "LinearLR", [3], [dict(end=[1000])], [dict(begin="x", end=1000)]]
)
def test_what_is_no_schedule_is_left_to_the_runner_to_name(odd):
    config = Config(dict(train_cfg=dict(max_iters=50), param_scheduler=odd, schedule_length=1000))
    fit_schedule(config)


def test_schedulers_that_are_not_built_have_no_end_yet():
    configs = [warm_up(), [steps()], dict(first=[warm_up()]), None]
    assert [schedule_ends(part) for part in configs] == [[], [], [], []]


@pytest.mark.parametrize("length", [0, "all", True])
def test_a_length_that_is_no_number_is_refused(length):
    with pytest.raises(ConfigError, match="schedule_length"):
        fit_schedule(schedule(50, warm_up(), length=length))


def test_no_schedule_of_the_project_changes_unless_the_length_does(root):
    paths = [path for path in root.glob("configs/**/*.py") if "_base_" not in path.parts]
    for path in paths:
        config = load_config(path)
        before = config.to_dict()
        assert fit_schedule(config) is None, path
        assert config.to_dict() == before
        loop = config.get("train_cfg") or {}
        assert loop.get("max_iters", loop.get("max_epochs")) == config.get("schedule_length")


def test_the_published_schedule_is_150_000_iterations_with_two_steps(root):
    config = load_config(root / "configs/grounding_dino_swin_t.py")
    warm, decay = config.param_scheduler
    assert (config.train_cfg.max_iters, warm.end) == (150_000, 1000)
    assert (decay.milestones, decay.end) == ([120_000, 140_000], 150_000)


@pytest.mark.parametrize("name", ["max_iters", "train_cfg.max_iters"])
def test_either_name_on_the_command_line_sets_the_length(root, name):
    path = root / "configs/finetune/coco_json_swin_t.py"
    config = load_config(path, {name: 20})
    fit_schedule(config)
    warm, decay = config.param_scheduler
    assert (config.train_cfg.max_iters, warm.end) == (20, 1)
    assert (decay.milestones, decay.end) == ([16], 20)


def test_a_run_by_epochs_has_no_iterations_to_set(root):
    with pytest.raises(ConfigError, match=r"train_cfg\.max_epochs"):
        load_config(root / "configs/grounding_dino_t_for_alignment.py", {"max_iters": 5})
