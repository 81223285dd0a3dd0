"""Wheels for a machine without a network."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/wheelhouse.py")


def write_wheel(folder, name, version, tag="py3-none-any"):
    """A wheel with one module of its name."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def network(tool, monkeypatch):
    """Stands for pip: writes what it is told to fetch, and remembers it."""
    calls = []

    def pip(*words):
        calls.append(words)
        for pin in words:
            name, equal, version = str(pin).partition("==")
            if equal:
                folder = words[[str(x) in ("--dest", "--wheel-dir") for x in words].index(True) + 1]
                write_wheel(folder, name.replace("-", "_"), version)

    monkeypatch.setattr(tool, "pip", pip)
    return calls


def names(tool, folder):
    return {tool.distribution(wheel)[0] for wheel in folder.glob("*.whl")}


def test_all_but_the_machines_packages_is_collected_once(tool, network, tmp_path):
    assert tool.main(["collect", str(tmp_path)]) == 0
    found = names(tool, tmp_path)
    assert {"onedl-mmcv", "onedl-mmdetection", "pycocotools", "liger-kernel", "pytest"} <= found
    assert not found & {"torch", "numpy", "scipy", "triton", "tokenizers", "ruff", "pycocoevalcap"}
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in found)
    assert not found & {"gradio", "s3fs", "moto", "openai", "pandas", "supervision"}  # of extras
    built, downloaded = network
    assert built[0] == "wheel"
    assert downloaded[downloaded.index("--python-version") + 1] == "3.12"
    assert tool.main(["collect", str(tmp_path)]) == 0
    assert len(network) == 2


def test_wheels_of_other_versions_do_not_stay(tool, network, tmp_path):
    write_wheel(tmp_path, "pycocotools", "1.0")
    tool.main(["collect", str(tmp_path)])
    assert not list(tmp_path.glob("pycocotools-1.0-*"))
    assert "pycocotools" in names(tool, tmp_path)


def test_the_versions_are_those_of_the_lock_file_for_that_python(tool):
    assert tool.locked("3.10")["networkx"] == "3.4.2"
    assert tool.locked("3.12")["networkx"] == "3.6.1"
    assert "tomli" not in tool.locked("3.12")


def test_more_than_the_limit_is_an_error(tool, network, tmp_path, capsys):
    assert tool.main(["collect", str(tmp_path), "--limit", "0.001"]) == 1
    assert "more than the 0.001 MB" in capsys.readouterr().err


def test_what_was_built_for_one_python_alone_is_an_error(tool, tmp_path, capsys):
    write_wheel(tmp_path, "onedl_mmcv", "2.3.6", "cp311-cp311-linux_x86_64")
    assert tool.report(tmp_path, 60) == 1
    assert "built for this machine alone: onedl_mmcv-2.3.6-cp311" in capsys.readouterr().err


def test_wheels_are_installed_without_a_network_and_import(tool, tmp_path, monkeypatch, capsys):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    write_wheel(wheels, "llmdet_test_only", "7.1")
    monkeypatch.setattr(tool, "MACHINE", {"torch", "no-such-package"})
    assert tool.main(["install", str(wheels), "--target", str(site)]) == 0
    printed = capsys.readouterr().out
    assert f"export PYTHONPATH={site}" in printed
    assert "leave to it: no-such-package\n" in printed
    monkeypatch.setenv("PYTHONPATH", str(site))
    code = "import llmdet_test_only as installed; print(installed.version)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7.1\n"


def test_an_empty_folder_is_refused(tool, tmp_path, capsys):
    assert tool.main(["install", str(tmp_path), "--target", str(tmp_path / "site")]) == 2
    assert "holds no wheels" in capsys.readouterr().err
