"""The wheel holds what its commands need: the package, the configs, and an entry point."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", reason="builds a wheel as pip would")
TAKEN = (
    "llmdet",
    "configs",
    "setup.py",
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    "LICENSE",
)


def run(
    folder: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": "" if path is None else str(path)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """Built of a copy: setuptools leaves folders where it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in TAKEN:
        place = root / name
        if place.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(place, source / name, ignore=ignored)
        else:
            shutil.copy(place, source / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    result = run(source, "-W", "ignore", "-c", build)
    (path,) = (source / "dist").glob("llmdet-*.whl")
    assert result.returncode == 0, result.stderr[-2000:]
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with what the wheel holds, in front of every other package."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_all_configs_are_inside_and_no_means_of_tests(root, installed):
    there = {path.relative_to(root) for path in (root / "configs").rglob("*.py")}
    shipped = installed / "llmdet"
    assert {path.relative_to(shipped) for path in (shipped / "configs").rglob("*.py")} == there
    assert not (shipped / "testing").exists()
    assert not (installed / "configs").exists()


def test_the_command_is_installed(installed):
    (path,) = installed.glob("llmdet-*.dist-info/entry_points.txt")
    assert "llmdet = llmdet.cli.__main__:main" in path.read_text()


def test_it_runs_from_anywhere_with_the_configs_that_it_ships(installed, tmp_path):
    result = run(tmp_path, "-m", "llmdet.cli", "train", "--help", path=installed)
    assert result.stdout.startswith("usage: llmdet train ")
    code = "import sys\nfrom llmdet.utils.config import load_config\nload_config(sys.argv[1])"
    result = run(tmp_path, "-c", code, "configs/val/coco_swin_t.py", path=installed)
    assert result.returncode == 0
    assert f"taking {installed}/llmdet/configs/val/coco_swin_t.py" in result.stderr
