"""What answers that name candidates come to."""

from __future__ import annotations

import pytest

from llmdet.testing.retrieval_answers import COLUMNS, scores

BOX, OTHER = [0.0, 0, 10, 10], [20.0, 0, 30, 10]


def row(task, meant, found, unseen=False):
    return {"task": task, "unseen": unseen, "meant": meant, "found": found}


def test_values_keep_tasks_apart():
    values = scores(
        [
            row("detect", [BOX], [BOX, OTHER]),
            row("detect", [BOX, OTHER], [OTHER]),
            row("detect", [BOX], [], unseen=True),
            row("several", [BOX], [BOX]),
            row("relate", [BOX], [BOX, OTHER]),
            row("relate", [BOX], []),
            row("several", [BOX], [], unseen=True),
            row("count", [BOX], []),
            row("absent", [], []),
            row("absent", [], [BOX]),
            row("refuse", [], []),
        ]
    )
    assert values.keys() == set(COLUMNS)
    assert (values["detect P"], values["detect R"]) == (75, 75)
    assert (values["unseen P"], values["several R"]) == (0, 100)
    # F1, halved for a box too many; of the second nothing was found.
    assert values["relate DF1"] == pytest.approx(100 * 2 / 3 / 2 / 2)
    assert (values["absent rejected"], values["empty relation rejected"]) == (50, 100)
    assert values["falsely rejected"] == 50
    assert values["trained rejected"] == pytest.approx(100 / 3)
    parts = ("known kinds", "unseen kinds", "relations")
    assert [values[f"{part} rejected"] for part in parts] == [25, 100, 50]
