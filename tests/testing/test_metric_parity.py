"""Our metrics equal the official tools on their fixtures."""

import json
import os
import shutil
from pathlib import Path

import pytest

from llmdet.errors import DataError
from llmdet.testing.golden import LOCAL
from llmdet.testing.parity.metrics import compare_case

CASES = sorted(file.parent for file in LOCAL.rglob("expected.json"))
NEEDS_JAVA = ("gcg", "caption")


def name_of(case: Path) -> str:
    return f"{case.parent.name}/{case.name}"


def assert_parity(case: Path) -> None:
    if case.parent.name in NEEDS_JAVA:
        pytest.importorskip("pycocoevalcap")
        if shutil.which("java") is None:
            pytest.skip("caption metrics need Java")
    rows = list(compare_case(case))
    assert rows
    assert [row for row in rows if not row.equal] == []


def marked(case: Path):
    """Starting Java takes long."""
    return pytest.param(case, marks=[pytest.mark.slow] * (case.parent.name in NEEDS_JAVA))


@pytest.mark.parametrize("case", [marked(case) for case in CASES], ids=map(name_of, CASES))
def test_every_number_of_the_official_tool_is_reproduced(case):
    assert_parity(case)


def test_all_other_fixtures_are_reproduced_where_they_are_at_hand():
    root = os.environ.get("LLMDET_GOLDEN")
    if root is None:
        pytest.skip("set LLMDET_GOLDEN to the folder of golden fixtures")
    known = {name_of(case) for case in CASES}
    others = [file.parent for file in Path(root).rglob("eval/**/expected.json")]
    for case in sorted(others):
        if name_of(case) not in known and case.parent.name not in NEEDS_JAVA:
            assert_parity(case)


def test_a_wrong_number_is_found(tmp_path):
    case = tmp_path / "grefcoco" / "syn"
    shutil.copytree(LOCAL / "grefcoco" / "syn", case)
    values = json.loads((case / "expected.json").read_text())
    values["expected"]["mmdet"]["metrics"]["F1_score"] += 2e-6
    (case / "expected.json").write_text(json.dumps(values))
    assert [row.name for row in compare_case(case) if not row.equal] == ["F1_score"]


def test_a_key_of_an_unknown_tool_is_an_error(tmp_path):
    (tmp_path / "expected.json").write_text('{"expected": {"sorcery": {"metrics": {"AP": 1.0}}}}')
    with pytest.raises(DataError, match="sorcery"):
        list(compare_case(tmp_path))
