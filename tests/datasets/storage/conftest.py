"""An S3 server on the loopback interface, objects in memory, and tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from llmdet.testing.programs import load_program


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads what another one cached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mmengine.fileio.io.backend_instances", {})
    monkeypatch.setattr("llmdet.datasets.storage.shards._opened", {})


@pytest.fixture
def memory():
    """Objects at ``memory://``."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture(scope="session")
def s3_endpoint(root):
    """The address of an S3 server, a process of its own as workers are forked from this one."""
    with load_program(root / "tools/benchmark/storage.py").s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """An empty bucket: how it is written to, and backend_args that read it."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = s3fs.S3FileSystem(endpoint_url=s3_endpoint, skip_instance_cache=True)
    if files.exists("pictures"):
        files.rm("pictures", recursive=True)
    files.mkdir("pictures")
    return files, {"storage_options": {"endpoint_url": s3_endpoint}}


def picture(value: int, size: tuple[int, int] = (60, 40)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def row(name: str = "a.png", **fields) -> dict:
    """A grounding row."""
    box = {"bbox": [1, 2, 30, 30], "phrase": "red ball", "tokens_positive": [[2, 10]]}
    form = {"caption": "A red ball.", "regions": [box]}
    return {"filename": name, "height": 40, "width": 60, "grounding": form, **fields}


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar with members in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample_members(keys, **fields) -> dict[str, bytes]:
    """A picture, filled with the number of its key, and a json for each key."""
    members = {}
    for key in keys:
        members[f"{key}.png"] = picture(int(Path(key).name))
        members[f"{key}.json"] = json.dumps(row("ignored.png", **fields)).encode()
    return members
