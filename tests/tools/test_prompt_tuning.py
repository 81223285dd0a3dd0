"""Learning the classes of a data set through the trainer, by configs/finetune/prompt_tuning.py."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from llmdet import Detector
from llmdet.apis.pretrained import find_config
from llmdet.checkpoint import read_checkpoint
from llmdet.errors import CheckpointError
from llmdet.testing.models import tiny_grounding_dino
from llmdet.testing.programs import load_program
from llmdet.utils.config import load_config

CONFIG = """
_base_ = "{config}"
model = dict({model})
load_missing = {load_missing}
load_from = "{base}"
optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=0))
"""


@pytest.fixture(scope="module")
def tuned(root, tiny_project):
    """The work dir of a run of four iterations, and the weights that it began with."""
    folder = tiny_project.folder / "prompt_tuning"
    folder.mkdir()
    base = folder / "base.pth"
    model = tiny_grounding_dino(tiny_project.folder / "bert")
    torch.save({"meta": {}, "state_dict": model.state_dict()}, base)
    shipped = load_config(root / "configs" / "finetune" / "prompt_tuning.py")
    keys = ("freeze_backbone", "freeze_lm", "use_dn", "learned_classes", "tuning")
    settings = ", ".join(f"{key}={shipped.model[key]!r}" for key in keys)
    config = folder / "tuning.py"
    config.write_text(
        CONFIG.format(
            config=tiny_project.config,
            model=settings,
            load_missing=list(shipped.load_missing),
            base=base,
        )
    )
    call(root, "train", config, "--work-dir", folder / "run")
    return folder / "run", base


def call(root, name, *arguments):
    load_program(root / "tools" / f"{name}.py").main([str(each) for each in arguments])


def test_checkpoints_hold_what_was_learned_and_name_the_rest(tuned):
    run, base = tuned
    checkpoint = read_checkpoint(run / "iter_4.pth")
    assert all(key.startswith("learned_classes.<") for key in checkpoint.state_dict)
    assert len(checkpoint.state_dict) == 40  # classes of the toy set that training shows
    assert any(value.any() for value in checkpoint.state_dict.values())
    assert checkpoint.meta["base"]["file"] == str(base)


def test_other_names_are_found_as_before_and_the_learned_ones_are_not(tuned, photos):
    run, base = tuned
    before = Detector.from_pretrained(run / "tuning.py", base, device="cpu")
    after = Detector.from_pretrained(run / "tuning.py", run / "iter_4.pth", device="cpu")
    assert before.learned_classes == ()
    assert "red circle" in after.learned_classes
    names = ["coffee", "dog"]
    first, second = (
        each.predict(photos / "cat.jpg", names, threshold=0) for each in (before, after)
    )
    assert np.array_equal(first.scores, second.scores)
    assert np.array_equal(first.boxes, second.boxes)
    first, second = (
        each.predict(photos / "cat.jpg", ["red circle"], threshold=0) for each in (before, after)
    )
    assert not np.array_equal(first.scores, second.scores)


def test_a_run_is_tested_and_resumed(root, tuned, tmp_path):
    run, _ = tuned
    # The config that asks for the names, and the one with the names that lies beside the weights.
    assert find_config(run.parent / "tuning.py")[0].model.learned_classes == "train_dataloader"
    assert len(find_config(run / "tuning.py")[0].model.learned_classes) == 40
    call(root, "test", run.parent / "tuning.py", run / "iter_4.pth", "--work-dir", tmp_path)
    (measured,) = tmp_path.glob("*/*.json")
    assert "coco/bbox_mAP" in json.loads(measured.read_text())
    resumed = shutil.copytree(run, tmp_path / "run")
    options = ("--resume", "--cfg-options", "train_cfg.max_iters=5")
    call(root, "train", run.parent / "tuning.py", "--work-dir", resumed, *options)
    assert (resumed / "last_checkpoint").read_text() == "iter_5.pth"
    assert len(read_checkpoint(resumed / "iter_5.pth").state_dict) == 40


def test_the_base_may_move_with_the_checkpoint_but_not_be_another(tuned, tmp_path):
    run, base = tuned
    weights = shutil.copy(run / "iter_4.pth", tmp_path)
    hidden = base.rename(base.with_suffix(".away"))
    try:
        with pytest.raises(CheckpointError, match="holds learned classes alone"):
            Detector.from_pretrained(run / "tuning.py", weights, device="cpu")
        shutil.copy(hidden, tmp_path / base.name)
        found = Detector.from_pretrained(run / "tuning.py", weights, device="cpu")
        assert len(found.learned_classes) == 40
        with (tmp_path / base.name).open("ab") as file:
            file.write(b"more")
        with pytest.raises(CheckpointError, match="holds another today"):
            Detector.from_pretrained(run / "tuning.py", weights, device="cpu")
    finally:
        hidden.rename(base)
