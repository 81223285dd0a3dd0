import numpy as np
import pytest

from llmdet.visualization.sheet import contact_sheet


def test_every_picture_is_on_the_page_in_reading_order() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [np.full((20, 30, 3), colour, np.uint8) for colour in colours]
    page = contact_sheet(images, ["red", "green", "blue"], columns=2, side=40)
    places = [np.argwhere((page == colour).all(-1)).min(0) for colour in colours]
    assert places[0][0] == places[1][0] < places[2][0]
    assert places[0][1] == places[2][1] < places[1][1]
    for colour in colours:
        assert (page == colour).all(-1).sum() == 20 * 30


def test_large_pictures_are_reduced_and_keep_their_shape() -> None:
    page = contact_sheet([np.zeros((400, 800, 3), np.uint8)], [""], side=100)
    rows, columns = np.nonzero((page == 0).all(-1))
    assert np.ptp(columns) + 1 == 100
    assert np.ptp(rows) + 1 == 50


@pytest.mark.parametrize("text", ["a dog", "word " * 500, ""])
def test_text_never_runs_into_the_next_picture(text: str) -> None:
    grey = np.full((40, 40, 3), 128, np.uint8)
    page = contact_sheet([grey, grey], [text, ""], columns=1, side=40)
    assert (page == 128).all(-1).sum() >= 2 * 40 * 40
    assert (page < 100).any() == bool(text)
