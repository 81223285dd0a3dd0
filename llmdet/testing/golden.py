"""Where the fixtures of official tools are, and how their numbers are compared."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "tests" / "golden" / "eval"


def case_folder(name: str) -> Path:
    """Folder of a fixture such as ``lvis/syn_edge``; skips where only a full set has it."""
    if (LOCAL / name).is_dir():
        return LOCAL / name
    root = os.environ.get("LLMDET_GOLDEN")
    if root is None:
        pytest.skip(f"set LLMDET_GOLDEN to the folder of golden fixtures to run {name}")
    return Path(root) / "eval" / "public" / name


def expected(folder: Path, key: str, field: str = "metrics") -> dict:
    """Values of an official tool."""
    return json.loads((folder / "expected.json").read_text())["expected"][key][field]


def assert_equal_metrics(
    ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float = 1e-12
) -> None:
    """Every number that the official tool reports equals ours."""
    different = {
        name: (ours.get(name), value)
        for name, value in theirs.items()
        if name not in ours or abs(ours[name] - value) > tolerance
    }
    assert theirs
    assert not different
