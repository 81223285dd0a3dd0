"""What is made for tests stays out of what users run."""

from pathlib import Path

#: They compare with the original: its recordings, or its ways of doing a training step.
COMPARING_TOOLS = {"parity.py", "metric_parity.py", "train_step.py"}


def test_nothing_that_a_user_runs_imports_the_testing_room(root: Path) -> None:
    files = [
        file
        for folder in ("llmdet", "tools", "demo", "configs")
        for file in (root / folder).rglob("*.*")
        if file.suffix in (".py", ".sh") and "testing" not in file.relative_to(root).parts
    ]
    assert len(files) > 100
    users = {file.name for file in files if "llmdet.testing" in file.read_text()}
    assert users <= COMPARING_TOOLS
