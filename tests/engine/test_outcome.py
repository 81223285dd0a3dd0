"""What a training says at its end can be typed as it stands."""

import logging
from types import SimpleNamespace

import pytest

from llmdet.engine.outcome import report_result


@pytest.fixture(autouse=True)
def checkout(tmp_path):
    """The present folder is one of the repository."""
    for name in ("image_demo.py", "dist_test.sh"):
        (tmp_path / name).touch()


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run in ``work dir`` of the present folder, whose best and last checkpoint are there."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "work dir"
    folder.mkdir()
    for name in ("iter_400.pth", "best_iter_200.pth"):
        (folder / name).touch()
    image = tmp_path / "image.jpg"
    image.touch()
    dataset = SimpleNamespace(get_data_info=lambda index: {"img_path": str(image)})
    return SimpleNamespace(
        iter=400,
        work_dir=str(folder),
        timestamp="now",
        cfg=SimpleNamespace(filename="configs/mine.py", get=lambda name: {}),
        _val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
        message_hub=SimpleNamespace(
            runtime_info={
                "last_ckpt": str(folder / "iter_400.pth"),
                "best_ckpt": str(folder / "best_iter_200.pth"),
                "best_score": 0.5,
            }
        ),
    )


def said(runner, caplog):
    with caplog.at_level(logging.INFO, "llmdet"):
        report_result(runner)
    return caplog.messages


def test_the_commands_name_the_best_weights_and_an_image_of_the_validation(finished, caplog):
    (text,) = said(finished, caplog)
    assert "trained 400 iterations; weights: 'work dir/iter_400.pth'" in text
    named = "'work dir/mine.py' {}'work dir/best_iter_200.pth'"
    assert "image_demo.py image.jpg " + named.format("--weights ") in text
    assert f"bash dist_test.sh {named.format('')} 1" in text


def test_an_installed_package_names_its_command(finished, caplog, tmp_path):
    (tmp_path / "dist_test.sh").unlink()
    (text,) = said(finished, caplog)
    assert "llmdet predict image.jpg 'work dir/mine.py' --weights" in text
    assert "llmdet test 'work dir/mine.py' 'work dir/best_iter_200.pth'" in text


def test_without_validation_the_last_weights_are_named(finished, caplog):
    finished._val_loop = None
    for name in ("best_ckpt", "best_score"):
        del finished.message_hub.runtime_info[name]
    (text,) = said(finished, caplog)
    assert "image_demo.py IMAGE 'work dir/mine.py' --weights 'work dir/iter_400.pth'" in text


def test_nothing_is_said_where_nothing_was_saved(finished, caplog):
    finished.message_hub.runtime_info.clear()
    assert said(finished, caplog) == []
