"""What a training writes for TensorBoard, read back as TensorBoard reads it."""

import io

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llmdet.engine import build_runner
from llmdet.utils.config import load_config, set_work_dir


@pytest.fixture(scope="module")
def events(tiny_project, tmp_path_factory):
    config = load_config(
        str(tiny_project.config),
        {
            "train_cfg.max_iters": 4,
            "train_cfg.val_interval": 2,
            "train_cfg.val_begin": 1,
            "default_hooks.visualization.pictures": 2,
            "default_hooks.visualization.score_thr": 0.0,
        },
    )
    config.visualizer.name = "events"  # one of a name is made once in a process
    config.visualizer.vis_backends = [dict(type="TensorboardVisBackend")]
    work_dir = tmp_path_factory.mktemp("events")
    set_work_dir(config, str(tiny_project.config), str(work_dir))
    build_runner(config).train()
    (folder,) = {path.parent for path in work_dir.rglob("events.out.*")}
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_losses_rates_and_speed_are_there_for_every_logged_step(events):
    for name in ("loss", "loss_cls", "lr", "grad_norm", "images_per_second"):
        values = events.Scalars(name)
        assert [value.step for value in values] == [1, 2, 3, 4]
        assert all(value.value > 0 for value in values)


def test_what_a_validation_measured_stands_at_its_iteration(events):
    assert [value.step for value in events.Scalars("coco/bbox_mAP")] == [2, 4]


def test_pictures_of_predictions_are_there_and_no_more_than_wanted(events):
    names = events.Tags()["images"]
    assert len(names) == 2  # of six images
    drawn = events.Images(names[0])
    assert [picture.step for picture in drawn] == [2, 4]  # the same image at each validation
    picture = Image.open(io.BytesIO(drawn[0].encoded_image_string)).convert("RGB")
    assert len(picture.getcolors(1 << 20)) > 2  # boxes and their labels
