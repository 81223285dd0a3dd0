"""Reading checkpoint files: what is opened, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from safetensors.torch import save_file

from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.errors import CheckpointError

WEIGHT = torch.arange(6.0).reshape(2, 3)


class Program:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "ema", "module"])
def test_wrappers_of_training_programs_are_opened(tmp_path, wrapper):
    content = {"module.a.weight": WEIGHT}
    path = tmp_path / "a.pth"
    torch.save(content if wrapper is None else {wrapper: content, "epoch": 3}, path)
    read = read_checkpoint(path)
    assert list(read.state_dict) == ["a.weight"]
    assert torch.equal(read.state_dict["a.weight"], WEIGHT)


def test_of_mmengines_two_sets_of_weights_the_average_is_read(tmp_path):
    raw = {"module.a": WEIGHT, "steps": torch.tensor(3)}
    torch.save({"state_dict": {"a": 2 * WEIGHT}, "ema_state_dict": raw}, tmp_path / "ema.pth")
    read = read_checkpoint(tmp_path / "ema.pth").state_dict
    assert list(read) == ["a"]
    assert torch.equal(read["a"], 2 * WEIGHT)


def test_a_pickle_that_would_run_a_program_is_refused_and_does_not_run(tmp_path):
    path, target = tmp_path / "evil.pth", tmp_path / "written"
    torch.save({"state_dict": {"a": WEIGHT}, "hook": Program(target)}, path)
    with pytest.raises(CheckpointError, match=r"would run a program.*safetensors\.torch"):
        read_checkpoint(path)
    assert not target.exists()


def test_the_log_buffers_of_a_real_training_run_do_not_make_a_checkpoint_unsafe(tmp_path):
    hub = MessageHub.get_instance("test_files")
    hub.update_scalar("train/loss", torch.tensor(1.5))
    hub.update_scalar("train/lr", np.float64(0.1))
    path = tmp_path / "epoch_1.pth"
    content = {"state_dict": {"a": WEIGHT}, "meta": {"epoch": 1}, "message_hub": hub.state_dict()}
    torch.save(content, path)
    read = read_checkpoint(path)
    assert torch.equal(read.state_dict["a"], WEIGHT)
    assert read.meta["epoch"] == 1


def test_a_damaged_file_names_itself(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save({"a": WEIGHT}, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cut\.pth"):
        read_checkpoint(path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        read_checkpoint(bad)


def test_a_file_without_tensors_says_what_it_holds(tmp_path):
    path = tmp_path / "log.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="epoch"):
        read_checkpoint(path)


def test_a_missing_path_says_what_may_be_given(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pth")


def test_a_hub_id_that_cannot_be_reached_says_so():
    with pytest.raises(CheckpointError, match="nor reachable"):
        read_checkpoint("nobody/nothing-of-this-name")


def test_shards_of_a_folder_are_read_together(tmp_path):
    save_file({"a": WEIGHT}, tmp_path / "model-1.safetensors")
    save_file({"b": WEIGHT + 1}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    read = read_checkpoint(tmp_path)
    assert torch.equal(read.state_dict["b"], WEIGHT + 1)
    assert read.config == {"model_type": "x"}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_written_is_read_back_bit_by_bit_also_with_shared_tensors(tmp_path, name):
    tensors = {"a": WEIGHT, "tied": WEIGHT, "view": WEIGHT.t(), "half": WEIGHT.half()}
    write_checkpoint(tmp_path / name, tensors)
    read = read_checkpoint(tmp_path / name).state_dict
    assert set(read) == set(tensors)
    for key, value in tensors.items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value)
