"""Views of any image, and where it lies in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms import MakeViews, PackViews
from llmdet.datasets.views import FITS, ViewSettings, make_view, window_around
from llmdet.errors import ConfigError, DataError
from llmdet.models.vision.views import collate_views

BLACK = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
SIDES = st.integers(1, 90)


@st.composite
def seen_boxes(draw):
    """An image's size, a box of whole pixels in it, a view's settings, a window, a mirror."""
    height, width = draw(SIDES), draw(SIDES)
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    left, top = draw(st.integers(0, x1)), draw(st.integers(0, y1))
    right, bottom = draw(st.integers(box[2], width)), draw(st.integers(box[3], height))
    window = draw(st.sampled_from([None, (left, top, right, bottom)]))
    view = ViewSettings(
        size=(draw(SIDES), draw(SIDES)),
        fit=draw(st.sampled_from(FITS)),
        centred=draw(st.booleans()),
        interpolation="nearest",
        **BLACK,
    )
    return (height, width), box, view, window, draw(st.booleans())


@given(seen_boxes())
@settings(max_examples=150)
def test_a_box_and_the_same_box_in_the_view_cover_the_same_pixels_to_within_one(case):
    size, box, view, window, mirrored = case
    x1, y1, x2, y2 = box
    image = np.zeros((*size, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    made = collate_views([make_view(image, view, window=window, mirrored=mirrored)])
    first = torch.zeros(1, dtype=torch.int64)
    frame = made.frame
    placed = frame.boxes(torch.tensor([[*box]]).float(), first)
    back = frame.original_boxes(placed, first)
    torch.testing.assert_close(back[0], torch.tensor([*box]).float(), rtol=0, atol=1e-3)
    mask = torch.from_numpy(image[..., 0] > 0)[None]
    visible = clipped(placed[0], frame.valid_boxes()[0])
    for drawn in (made.pixels[0, 0] > 0.5, frame.masks(mask, 0)[0]):
        rows, columns = drawn.nonzero().unbind(1)
        if len(rows):
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            covered = clipped(torch.stack(extent).float(), frame.valid_boxes()[0])
            torch.testing.assert_close(covered, visible, rtol=0, atol=1.001)
        else:  # nothing of it is seen, or it is too thin for nearest pixels
            assert (visible[2:] - visible[:2]).min() <= 1.001


def clipped(box, limits):
    return torch.minimum(torch.maximum(box, limits[:2].repeat(2)), limits[2:].repeat(2))


def test_what_is_padded_has_the_mean_colour():
    image = np.full((10, 20, 3), 255, np.uint8)
    view = make_view(image, ViewSettings((20, 20), mean=(10.4, 20, 30), std=(1, 1, 1)))
    assert view.pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert (view.pixels[:, 5:15] == 255).all()
    assert view.placement.corner == (0, 5)


def test_the_red_channel_is_first():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 2] = 255  # red of an image that is decoded blue first
    view = make_view(image, ViewSettings((4, 4)))
    assert view.pixels[:, 0, 0].tolist() == [255, 0, 0]


def test_views_of_different_sizes_are_padded_together():
    view = ViewSettings((30, 60), "inside", **BLACK)
    images = [np.full(size, 255, np.uint8) for size in ((30, 40, 3), (100, 50, 3))]
    made = collate_views([make_view(image, view) for image in images])
    assert made.pixels.shape == (2, 3, 60, 40)
    assert made.frame.valid_sizes == ((30, 40), (60, 30))
    assert made.pixels[0, :, 30:].abs().max() == 0
    assert made.frame.valid_boxes().tolist() == [[0, 0, 40, 30], [0, 0, 30, 60]]


def test_a_sample_gets_all_views_and_its_regions_stay_as_they_are():
    views = {"clip": ViewSettings((8, 8)), "sam": ViewSettings((16, 16), centred=False)}
    results = {"img": np.zeros((6, 9, 3), np.uint8), "ori_shape": (6, 9), "img_id": 3}
    packed = PackViews().transform(MakeViews(views, mirror_probability=1.0).transform(results))
    assert {name: view.pixels.shape for name, view in packed["inputs"].items()} == {
        "clip": (3, 8, 8),
        "sam": (3, 16, 16),
    }
    assert all(view.placement.scale[0] < 0 for view in packed["inputs"].values())
    assert packed["data_samples"].img_id == 3
    assert len(packed["data_samples"].grounding.regions) == 0


def test_faults_are_named():
    image = np.zeros((6, 9, 3), np.uint8)
    with pytest.raises(DataError, match="does not lie in an image of 9 x 6"):
        make_view(image, ViewSettings((8, 8)), window=(0, 0, 10, 6))
    with pytest.raises(ConfigError, match="fit='square'"):
        ViewSettings((8, 8), "square")
    with pytest.raises(ConfigError, match="knows no view"):
        MakeViews().transform({"img": image})
    resized = {"img": image, "ori_shape": (12, 18)}
    with pytest.raises(ConfigError, match="leave resizing out"):
        MakeViews({"clip": ViewSettings((8, 8))}).transform(resized)


@given(st.integers(20, 90), st.integers(20, 90), st.data())
def test_a_window_holds_its_box_wherever_it_lies(height, width, data):
    side = min(height, width)
    x1, y1 = data.draw(st.floats(0, width - 2)), data.draw(st.floats(0, height - 2))
    x2 = data.draw(st.floats(x1 + 1, min(width, x1 + side)))
    y2 = data.draw(st.floats(y1 + 1, min(height, y1 + side)))
    left, top, right, bottom = window_around((x1, y1, x2, y2), (height, width))
    assert left - 1 <= x1 <= x2 <= right + 1
    assert top - 1 <= y1 <= y2 <= bottom + 1
    assert right - left == bottom - top == side


def test_a_window_around_a_large_box_is_the_image_and_the_originals_may_lose_a_box():
    assert window_around((0, 5, 60, 9), (40, 90)) == (0, 0, 90, 40)
    box = (35, 5, 39, 9)
    assert window_around(box, (40, 90)) == (17, 0, 57, 40)
    assert window_around(box, (40, 90), legacy=True) == (50, 0, 90, 40)
