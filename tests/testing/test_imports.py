"""What is made for tests stays out of what users run."""

from pathlib import Path

#: They compare with recordings of the original, or with other ways of doing the same.
COMPARING_TOOLS = (
    "tools/analysis/parity.py",
    "tools/analysis/metric_parity.py",
    "tools/benchmark/",
)


def test_nothing_that_a_user_runs_imports_the_testing_room(root: Path) -> None:
    files = [
        file
        for folder in ("llmdet", "tools", "demo", "configs")
        for file in (root / folder).rglob("*.*")
        if file.suffix in (".py", ".sh") and "testing" not in file.relative_to(root).parts
    ]
    assert len(files) > 100
    users = [str(file.relative_to(root)) for file in files if "llmdet.testing" in file.read_text()]
    assert users
    assert not [user for user in users if not user.startswith(COMPARING_TOOLS)]
