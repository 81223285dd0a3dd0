"""The documentation builds, its links lead somewhere, and its commands run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = "mkdocs-material and ipykernel are locked for Python 3.11 and later"
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[\w-]+)?\)")
_RUNNABLE = re.compile(r"<!-- runnable -->\n```bash\n(.*?)```", re.DOTALL)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def pages(root: Path) -> list[Path]:
    return [*root.glob("*.md"), *(root / "docs").rglob("*.md"), root / "data" / "README.md"]


def test_relative_links_lead_to_files(root):
    broken = []
    for page in pages(root):
        for target in _LINK.findall(_CODE.sub("", page.read_text())):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    assert not broken


def test_every_page_is_found_from_the_readme_or_the_site(root):
    listed = (root / "README.md").read_text() + (root / "mkdocs.yml").read_text()
    names = [page.relative_to(root / "docs").as_posix() for page in (root / "docs").rglob("*.md")]
    assert [name for name in names if name not in listed] == []


def test_the_site_builds_with_its_reference(root, tmp_path):
    pytest.importorskip("mkdocstrings", reason=NOTEBOOKS)
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(site)]
    subprocess.run(command, cwd=root, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    reference = (site / "reference" / "detector" / "index.html").read_text()
    assert "from_pretrained" in reference
    assert "per_class_thresholds" in reference


def test_the_commands_of_the_first_hour_run(root, tmp_path):
    """In a folder that has what a checkout has, with ``llmdet`` on the path."""
    for name in ("configs", "tools", "demo", "image_demo.py"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "bin").mkdir()
    programs = {"llmdet": "-m llmdet.cli", "python": ""}
    for name, module in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore {module} "$@"\n')
        program.chmod(0o755)
    blocks = _RUNNABLE.findall((root / "docs" / "first_hour.md").read_text())
    assert len(blocks) == 7
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(root)}
    for block in blocks:
        run = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, f"{block}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
    assert list((tmp_path / "outputs" / "vis").iterdir())
    assert (tmp_path / "labelled" / "instances_train.json").is_file()


def test_the_tour_runs_from_top_to_bottom(root, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason=NOTEBOOKS)
    nbformat = pytest.importorskip("nbformat", reason=NOTEBOOKS)
    pytest.importorskip("ipykernel", reason=NOTEBOOKS)
    monkeypatch.setenv("PYTHONPATH", str(root))
    # Others' warnings about deprecation would be outputs of the cells.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    (tmp_path / "configs").symlink_to(root / "configs")
    tour = nbformat.read(root / "demo" / "tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in tour.cells)
    client = nbclient.NotebookClient(tour, kernel_name="python3", timeout=240)
    client.execute(cwd=str(tmp_path))
    outputs = [output for cell in tour.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
