"""tools/evaluate.py and tools/analysis/metric_parity.py as users call them."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from llmdet.testing.golden import LOCAL

ROOT = Path(__file__).parents[2]
TOOLS = {
    "evaluate": "tools/evaluate.py",
    "parity": "tools/analysis/metric_parity.py",
    "errors": "tools/analysis/errors.py",
    "benchmark": "tools/benchmark/lvis_metric.py",
}


def call(tool, *arguments):
    command = [sys.executable, str(ROOT / TOOLS[tool]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("tool", TOOLS)
def test_help_answers_within_three_seconds_of_processor_time(tool):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = call(tool, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert "llmdet" not in result.stderr


def test_evaluating_loads_neither_torch_nor_mmengine():
    code = "import sys, llmdet.evaluation.suite; print({'torch', 'mmengine'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "set()"


def test_a_metric_prints_a_table_and_writes_all_numbers(tmp_path):
    folder = LOCAL / "refexp" / "syn_unsorted"
    out = tmp_path / "out.json"
    result = call(
        "evaluate",
        "--metric",
        "refexp",
        "--gt",
        folder / "gt_mdetr_style.json.gz",
        "--pred",
        folder / "preds.npz",
        "--json",
        out,
        "--options",
        "criterion=giou",
    )
    assert result.returncode == 0, result.stderr
    values = json.loads(out.read_text())["values"]
    printed = dict(line.split() for line in result.stdout.splitlines())
    assert printed == {name: f"{value:.6f}" for name, value in values.items()}


def test_a_mistake_is_one_sentence_without_traceback():
    result = call("evaluate", "--metric", "coco", "--gt", "nothing.json", "--pred", "p.npz")
    assert result.returncode == 2
    assert result.stderr == "error: cannot read nothing.json: No such file or directory\n"


def test_parity_is_reported_and_differences_fail(tmp_path):
    case = LOCAL / "pope" / "syn"
    result = call("parity", case)
    assert result.returncode == 0
    assert "1 cases, 0 differences" in result.stdout
    copied = tmp_path / "syn"
    copied.mkdir()
    for file in case.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    text = (case / "expected.json").read_text().replace('"TP": 335', '"TP": 336')
    (copied / "expected.json").write_text(text)
    result = call("parity", copied)
    assert result.returncode == 1
    assert "TP" in result.stdout


def test_a_folder_without_fixtures_is_an_error(tmp_path):
    result = call("parity", tmp_path)
    assert result.returncode == 1
    assert "no expected.json" in result.stderr


def test_errors_become_one_page(tmp_path):
    folder = LOCAL / "coco" / "syn_annotation_id0"
    out = tmp_path / "page.html"
    result = call(
        "errors", "--gt", folder / "gt.json.gz", "--pred", folder / "preds.npz", "--out", out
    )
    assert result.returncode == 0, result.stderr
    assert "Worst classes" in out.read_text()


def test_the_benchmark_agrees_with_the_reference_on_a_small_load(tmp_path):
    out = tmp_path / "out.json"
    result = call(
        "benchmark",
        "--images",
        20,
        "--boxes",
        60,
        "--chunks",
        2,
        "--tools",
        "ours",
        "lvis-api",
        "--json",
        out,
    )
    assert result.returncode == 0, result.stderr
    ours, reference = json.loads(out.read_text())
    assert ours["AP"] == pytest.approx(reference["AP"], abs=1e-12)
    assert ours["AP"] > 0
