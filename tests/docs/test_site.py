"""The documentation builds, its links lead somewhere, and its commands run as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from llmdet.cli.__main__ import main as llmdet_command
from llmdet.testing.programs import import_ahead, run_forked

NOTEBOOKS = "mkdocs-material and ipykernel are locked for Python 3.11 and later"
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[\w-]+)?\)")
_ANCHOR = re.compile(r"\]\(([^)\s#]*)#([\w-]+)\)")
_RUNNABLE = r"<!-- runnable -->\n```{}\n(.*?)```"
_CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
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


def heading_anchors(page: Path) -> set[str]:
    """What GitHub and mkdocs call the headings of a page in links."""
    titles = re.findall(r"(?m)^#+ (.*)$", _CODE_BLOCK.sub("", page.read_text()))
    plain = [re.sub(r"[^\w\- ]", "", title.strip().lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def test_links_lead_to_headings(root):
    broken = []
    for page in pages(root):
        for target, anchor in _ANCHOR.findall(_CODE.sub("", page.read_text())):
            other = page.parent / target if target else page
            known = "://" not in target and other.suffix == ".md" and other.exists()
            if known and anchor not in heading_anchors(other):
                broken.append(f"{page.relative_to(root)}: {target}#{anchor}")
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


def runnable(root: Path, page: str, language: str) -> list[str]:
    """The blocks of a page that are marked as such."""
    text = (root / "docs" / page).read_text()
    return re.findall(_RUNNABLE.format(language), text, re.DOTALL)


def run_line(line: str, root: Path) -> None:
    """What a shell does with a command; ``llmdet`` runs in this process."""
    program, *words = shlex.split(line)
    if program == "llmdet":
        llmdet_command(words)
    line = line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    subprocess.run(["bash", "-euc", line], check=True, env={**os.environ, "PYTHONPATH": str(root)})


@pytest.fixture(scope="module")
def first_hour(root, tmp_path_factory):
    """A folder with what a checkout has, in which the commands of the first hour ran."""
    folder = tmp_path_factory.mktemp("first_hour")
    for name in ("configs", "tools", "demo", "image_demo.py"):
        (folder / name).symlink_to(root / name)
    blocks = runnable(root, "first_hour.md", "bash")
    assert len(blocks) == 7
    import_ahead()
    for line in "".join(blocks).splitlines():
        run(partial(run_line, line, root), folder, line)
    return folder


def run(work, folder: Path, what: str) -> None:
    shown = folder / "shown.txt"
    code = run_forked(work, folder, shown)
    assert code == 0, f"{what}\n{shown.read_text()[-4000:]}"


def test_the_commands_of_the_first_hour_run(first_hour):
    assert list((first_hour / "outputs" / "vis").iterdir())
    assert (first_hour / "labelled" / "instances_train.json").is_file()


def run_examples(blocks: list[str]) -> None:
    """One after the other, with a model of the quickstart that has random weights."""
    import torch

    from llmdet.checkpoint import write_checkpoint
    from llmdet.registry import MODELS
    from llmdet.utils.config import load_config

    torch.manual_seed(0)
    model = MODELS.build(load_config("configs/quickstart/llmdet.py").model)
    write_checkpoint("work_dirs/quickstart/latest.pth", model.state_dict())
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, block, "exec"), names)


def test_the_examples_of_the_api_run(root, first_hour):
    blocks = runnable(root, "api.md", "python")
    assert len(blocks) == 7
    run(partial(run_examples, blocks), first_hour, "docs/api.md")
    assert (first_hour / "found.png").is_file()
    assert (first_hour / "found.json").is_file()
    assert (first_hour / "my_detector" / "detector.json").is_file()


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
