"""The command that converts checkpoints."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.models import tiny_config, tiny_grounding_dino


@pytest.fixture
def run(root):
    def run(*args):
        return subprocess.run(
            [sys.executable, "tools/convert/checkpoint.py", *map(str, args)],
            cwd=root,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
            check=False,
        )

    return run


def test_a_checkpoint_is_rewritten_bit_by_bit(run, tmp_path):
    source = tiny_grounding_dino(tiny_bert(tmp_path / "bert")).state_dict()
    write_checkpoint(tmp_path / "in.pth", source)
    done = run(tmp_path / "in.pth", tmp_path / "out.safetensors", "--to", "upstream")
    assert done.returncode == 0, done.stderr
    assert f"{len(source)} tensors" in done.stdout
    written = read_checkpoint(tmp_path / "out.safetensors").state_dict
    assert all(torch.equal(written[key], value) for key, value in source.items())


def test_what_transformers_makes_of_the_weights_is_said_when_they_are_exported(run, tmp_path):
    bert = tiny_bert(tmp_path / "bert")
    groups = {"neck": {"norm_cfg": {"num_groups": 32}}}  # the one size that cannot be changed
    model = tiny_grounding_dino(bert, **groups)
    write_checkpoint(tmp_path / "in.pth", model.state_dict())
    config = tmp_path / "config.py"
    config.write_text(f"model = {tiny_config(bert, **groups)!r}\n")
    arguments = ("--to", "transformers", "--config", config)
    done = run(tmp_path / "in.pth", tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\n\d+ tensors brought to sizes that transformers' class has", done.stdout)
    assert re.search(r"best scores change by up to [\d.e-]+, and boxes overlap", done.stdout)


def test_a_users_mistake_is_one_line_and_no_traceback(run, tmp_path):
    done = run(tmp_path / "absent.pth", tmp_path / "out.pth")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
