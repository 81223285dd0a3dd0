"""The position protocol of referring expressions."""

import pytest
import torch

from llmdet.models.text.referring import position_boost

# Centres at (20, 50) and (80, 150) of an image 100 wide and 200 high.
BOXES = torch.tensor([[10.0, 40.0, 30.0, 60.0], [70.0, 140.0, 90.0, 160.0]])
SCORES = torch.tensor([0.5, 0.25])
SIZE = (200, 100)


@pytest.mark.parametrize(
    ("expression", "added"),
    [
        ("the left dog", [1 + 0.7 * 0.8, 1 + 0.7 * 0.2]),
        ("dog on the right", [1 + 0.7 * 0.2, 1 + 0.7 * 0.8]),
        ("Top one", [1 + 0.7 * 0.75, 1 + 0.7 * 0.25]),
        ("upper, top", [1 + 0.7 * 0.75, 1 + 0.7 * 0.25]),
        ("the dog under", [1 + 0.7 * 0.25, 1 + 0.7 * 0.75]),
        ("bottom-left", [2 + 0.7 * (0.25 + 0.8), 2 + 0.7 * (0.75 + 0.2)]),
        ("bright stop sign by the laptop", [0, 0]),
        ("the dog", [0, 0]),
    ],
)
def test_whole_words_of_position_raise_scores_in_their_direction(
    expression: str, added: list[float]
) -> None:
    boosted = position_boost(expression, BOXES, SCORES, SIZE)
    torch.testing.assert_close(boosted, SCORES + torch.tensor(added))


def test_no_box_gives_no_score() -> None:
    assert position_boost("left", BOXES[:0], SCORES[:0], SIZE).shape == (0,)
