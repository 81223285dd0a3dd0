"""The pinned environment: complete, consistent, made once, and refused for a wrong Python."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

#: Imported module -> distribution, where their names differ.
MODULES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "fontTools": "fonttools",
    "huggingface_hub": "huggingface-hub",
    "json_repair": "json-repair",
    "liger_kernel": "liger-kernel",
    "mmcv": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
    "mmengine": "onedl-mmengine",
    "yaml": "pyyaml",
}
#: Parts of other packages: of transformers, of its chat templates, of gradio, and of torch.
BROUGHT_ALONG = {"huggingface-hub", "jinja2", "starlette", "triton"}
#: mmengine imports it for the TensorboardVisBackend of configs/_base_/default_runtime.py.
NAMED_IN_CONFIGS = {"tensorboard"}
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def read(path: Path) -> list[Requirement]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def extras(root: Path) -> dict[str, list[Requirement]]:
    """The optional packages of setup.py."""
    (call,) = [
        node.value
        for node in ast.walk(ast.parse((root / "setup.py").read_text()))
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    ]
    return {
        name: [Requirement(text) for text in texts]
        for name, texts in ast.literal_eval(call).items()
    }


def imported_modules(folder: Path) -> set[str]:
    """What the files of a folder import, llmdet/testing aside, at whatever depth of their code."""
    modules: set[str] = set()
    files = [file for file in folder.rglob("*.py") if folder / "testing" not in file.parents]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    return modules


def pins(root: Path, python: str) -> dict[str, str]:
    """The lock file as one version of Python sees it."""
    environment = {**default_environment(), "python_version": python, "sys_platform": "linux"}
    chosen = {}
    for pin in read(root / "requirements" / "lock.txt"):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in chosen, f"{pin.name} is pinned twice for Python {python}"
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            chosen[pin.name] = specifier.version
    return chosen


@pytest.mark.parametrize("python", VERSIONS)
def test_the_lock_file_pins_every_requirement_within_its_range(root, python):
    chosen = pins(root, python)
    for requirement in read(root / "requirements.txt"):
        assert requirement.name in chosen
        assert requirement.specifier.contains(chosen[requirement.name]), requirement


@pytest.mark.parametrize("python", VERSIONS)
def test_the_lock_file_has_four_extras_and_the_opencv_without_windows(root, python):
    chosen = pins(root, python)
    for requirement in (
        *extras(root)["chat"],
        *extras(root)["demo"],
        *extras(root)["export"],
        *extras(root)["dev"],
    ):
        assert requirement.specifier.contains(chosen[requirement.name])
    assert "opencv-python-headless" in chosen
    assert "opencv-python" not in chosen


def test_the_requirements_are_what_the_package_imports(root):
    required = {requirement.name for requirement in read(root / "requirements.txt")}
    optional = {r.name for name, group in extras(root).items() if name != "dev" for r in group}
    modules = {module.partition(".")[0] for module in imported_modules(root / "llmdet")}
    modules -= sys.stdlib_module_names | {"llmdet"}
    used = {MODULES.get(module, module) for module in modules}
    assert used <= required | optional | BROUGHT_ALONG
    tools = {module.partition(".")[0] for module in imported_modules(root / "tools")}
    assert required <= used | NAMED_IN_CONFIGS | tools


def test_nothing_that_users_run_needs_the_means_of_tests(root):
    modules = imported_modules(root / "llmdet") | imported_modules(root / "demo")
    assert not [module for module in modules if module.startswith("llmdet.testing")]


def source_environment(root: Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", 'source demo/environment.sh && echo "$python"'],
        cwd=root,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_environment_of_the_same_lock_file_is_used_again(root, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    made_from = (root / "requirements" / "lock.txt").read_bytes() + (root / "setup.py").read_bytes()
    stamp = f"{hashlib.sha256(made_from).hexdigest()} {root}\n"
    (tmp_path / ".llmdet-lock").write_text(stamp)
    # No Python is there that a new one could be made with.
    result = source_environment(root, LLMDET_VENV=tmp_path, LLMDET_PYTHON="/no/such/python")
    assert result.stdout == f"{tmp_path}/bin/python\n"


def test_a_python_that_is_too_old_is_refused_with_the_remedy(root, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    result = source_environment(root, LLMDET_VENV=tmp_path / "venv", LLMDET_PYTHON=old)
    assert result.returncode != 0
    assert "Python 3.10 to 3.13" in result.stderr
    assert "LLMDET_PYTHON" in result.stderr
    assert not (tmp_path / "venv").exists()
