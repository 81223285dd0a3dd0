"""What answers that name candidates come to."""

from __future__ import annotations

from math import isnan

import pytest

from llmdet.testing.retrieval_answers import FOUND, REJECTED, scores

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
            row("several", [BOX], [BOX], unseen=True),
            row("relate", [BOX], [], unseen=True),
            row("absent", [], []),
            row("absent", [], [BOX], unseen=True),
            row("refuse", [], []),
        ]
    )
    assert values.keys() == {*FOUND, *REJECTED}
    assert (values["detect P"], values["detect R"]) == (75, 75)
    assert (values["unseen detect P"], values["several R"]) == (0, 100)
    assert (values["unseen several R"], values["unseen relate DF1"]) == (50, 0)
    # F1, halved for a box too many; of the second nothing was found.
    assert values["relate DF1"] == pytest.approx(100 * 2 / 3 / 2 / 2)
    assert (values["absent kinds"], values["empty sides"]) == (50, 100)
    assert values["all that is there"] == pytest.approx(100 * 4 / 9)
    assert (values["trained"], values["trained kinds"], values["trained relations"]) == (20, 0, 50)
    assert values["unseen kinds"] == pytest.approx(200 / 3)
    assert values["unseen relations"] == 100


def test_what_was_not_asked_for_has_no_value():
    values = scores([row("detect", [BOX], [BOX])])
    known = {name for name, value in values.items() if not isnan(value)}
    assert known == {"detect P", "detect R", "all that is there", "trained", "trained kinds"}
