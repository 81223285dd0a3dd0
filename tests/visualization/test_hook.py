from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image

from llmdet.registry import HOOKS
from llmdet.visualization.hook import DetectionVisualizationHook
from llmdet.visualization.visualizer import DetLocalVisualizer


def sample(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(path)
    data = DetDataSample(metainfo={"img_path": str(path)})
    data.pred_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 15, 30, 35]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        label_names=["dog"],
    )
    return data


@pytest.fixture
def runner(tmp_path):
    DetLocalVisualizer.get_instance(
        f"of {tmp_path}", vis_backends=[{"type": "LocalVisBackend"}], save_dir=str(tmp_path)
    )
    return SimpleNamespace(work_dir=str(tmp_path), timestamp="now", iter=0)


@pytest.mark.parametrize("name", ["DetVisualizationHook", "GroundingVisualizationHook"])
def test_configs_that_name_mmdets_hooks_get_ours(name):
    assert isinstance(HOOKS.build({"type": name}), DetectionVisualizationHook)


def test_it_draws_nothing_unless_asked(runner, tmp_path):
    hook = DetectionVisualizationHook(test_out_dir="vis")
    hook.after_test_iter(runner, 0, None, [sample(tmp_path / "a.png")])
    hook.after_val_iter(runner, 0, None, [sample(tmp_path / "a.png")])
    assert not (tmp_path / "now").exists()


def test_every_test_image_is_drawn_in_one_folder(runner, tmp_path):
    hook = DetectionVisualizationHook(draw=True, test_out_dir="vis")
    for batch, name in enumerate(["a.png", "b.png"]):
        hook.after_test_iter(runner, batch, None, [sample(tmp_path / name)])
    names = sorted(path.name for path in (tmp_path / "now" / "vis").iterdir())
    assert names == ["a.png", "b.png"]


def test_equally_named_images_do_not_overwrite_each_other(runner, tmp_path):
    hook = DetectionVisualizationHook(draw=True, test_out_dir=str(tmp_path / "absolute"))
    images = [sample(tmp_path / folder / "a.png") for folder in ("left", "right")]
    hook.after_test_iter(runner, 0, None, images)
    assert len(list((tmp_path / "absolute").iterdir())) == 2


def test_every_process_of_a_distributed_test_draws_its_own_images(runner, tmp_path, monkeypatch):
    monkeypatch.setattr("mmengine.dist.utils.is_main_process", lambda *_: False)
    hook = DetectionVisualizationHook(draw=True, test_out_dir="vis")
    hook.after_test_iter(runner, 0, None, [sample(tmp_path / "a.png")])
    assert (tmp_path / "now" / "vis" / "a.png").is_file()


def test_validation_draws_the_first_image_of_every_interval(runner, tmp_path):
    hook = DetectionVisualizationHook(draw=True, interval=2)
    runner.iter = 100
    for batch in range(4):
        hook.after_val_iter(runner, batch, None, [sample(tmp_path / f"b{batch}.png")])
    stored = sorted(path.name for path in (tmp_path / "vis_data" / "vis_image").iterdir())
    assert stored == ["val_b0_100.png", "val_b2_100.png"]


def test_pictures_are_spread_over_a_validation(runner, tmp_path):
    hook = DetectionVisualizationHook(draw=True, pictures=2)
    runner.val_dataloader = range(6)
    for batch in range(6):
        hook.after_val_iter(runner, batch, None, [sample(tmp_path / f"b{batch}.png")])
    stored = sorted(path.name for path in (tmp_path / "vis_data" / "vis_image").iterdir())
    assert stored == ["val_b0_0.png", "val_b3_0.png"]
