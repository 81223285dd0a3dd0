"""Weights at an address: fetched once, read like any file, never executed."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from typing import ClassVar

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

import llmdet.engine  # noqa: F401  makes mmengine read checkpoints safely
from llmdet.checkpoint import read_checkpoint
from llmdet.errors import CheckpointError


class Bomb:
    def __reduce__(self):
        return os.system, ("true",)


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def log_message(self, *_):
        self.requests.append(self.path)


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server of a folder, and an empty cache."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))
    Quiet.requests.clear()
    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_read(address, tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1, 1)}}, tmp_path / "web" / "a.pth")
    for _ in range(2):
        assert read_checkpoint(f"{address}/a.pth").state_dict["weight"].item() == 1
    assert Quiet.requests == ["/a.pth"]


def test_mmengines_loading_refuses_an_address_that_would_execute_code(address, tmp_path):
    torch.save({"state_dict": {}, "payload": Bomb()}, tmp_path / "web" / "bomb.pth")
    with pytest.raises(CheckpointError, match="execute code"):
        load_checkpoint(nn.Linear(1, 1), f"{address}/bomb.pth")


def test_a_file_that_is_not_what_its_name_says_is_refused(address, tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "web" / "a-01234567.pth")
    with pytest.raises(CheckpointError, match=r"cannot be fetched.*hash"):
        read_checkpoint(f"{address}/a-01234567.pth")


def test_an_address_that_is_not_there_is_named(address):
    with pytest.raises(CheckpointError, match=r"nothing\.pth' cannot be fetched"):
        read_checkpoint(f"{address}/nothing.pth")


@pytest.mark.parametrize("name", ["s3://bucket/a.pth", "pavi://a", "mmcls://a"])
def test_places_that_cannot_be_read_safely_are_refused(name):
    with pytest.raises(CheckpointError, match="download the file"):
        load_checkpoint(nn.Linear(1, 1), name)


def test_names_of_torchvision_are_looked_up():
    with pytest.raises(CheckpointError, match="did you mean 'resnet50'"):
        load_checkpoint(nn.Linear(1, 1), "torchvision://resnet5o")
