"""Where images lie in what towers see."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.models.vision.views import Frame, frame_of

#: Two images: one halved and moved, one stretched; views of 20 x 30 pixels.
FRAME = Frame(
    scale=torch.tensor([[0.5, 0.5], [2.0, 1.0]]),
    offset=torch.tensor([[4.0, 2.0], [0.0, 0.0]]),
    valid_sizes=((10, 20), (16, 24)),
    original_sizes=((20, 40), (16, 12)),
    size=(20, 30),
)
IMAGE = torch.tensor([0, 1, 0])


def test_points_and_boxes_go_into_the_view_and_back():
    points = torch.tensor([[40.0, 20.0], [12.0, 16.0], [0.0, 0.0]])
    assert FRAME.points(points, IMAGE).tolist() == [[24, 12], [24, 16], [4, 2]]
    boxes = torch.tensor([[0.0, 0, 40, 20], [3, 4, 12, 16], [2, 2, 4, 8]])
    seen = FRAME.boxes(boxes, IMAGE)
    assert seen.tolist() == [[4, 2, 24, 12], [6, 4, 24, 16], [5, 3, 6, 6]]
    assert torch.equal(FRAME.original_boxes(seen, IMAGE), boxes)
    assert torch.equal(FRAME.original_points(FRAME.points(points, IMAGE), IMAGE), points)


def test_relative_boxes_count_the_valid_part_and_stay_in_it():
    boxes = torch.tensor([[0.0, 0, 40, 20], [3, 4, 12, 16], [-4, 10, 80, 20]])
    relative = FRAME.relative_boxes(boxes, IMAGE)
    expected = torch.tensor([[0, 0, 1, 1], [0.25, 0.25, 1, 1], [0, 0.5, 1, 1]])
    torch.testing.assert_close(relative, expected)


@pytest.mark.parametrize("image", [0, 1])
def test_a_mask_covers_in_the_view_what_its_box_covers(image):
    height, width = FRAME.original_sizes[image]
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 4:12, 2:8] = True
    masks[1] = True
    seen = FRAME.masks(masks, image)
    boxes = torch.tensor([[2.0, 4, 8, 12], [0, 0, width, height]])
    for mask, box in zip(seen, FRAME.boxes(boxes, torch.full((2,), image)), strict=True):
        x1, y1, x2, y2 = (int(value) for value in box)
        expected = torch.zeros(FRAME.size, dtype=torch.bool)
        expected[y1:y2, x1:x2] = True
        assert torch.equal(mask, expected)
    assert torch.equal(FRAME.original_masks(seen, image), masks)


def test_the_frame_of_a_batch_is_that_of_its_resized_and_padded_images():
    samples = [
        DetDataSample(metainfo={"img_shape": (50, 33), "ori_shape": (100, 67)}),
        DetDataSample(metainfo={"img_shape": (64, 40)}),
    ]
    frame = frame_of(samples, torch.zeros(2, 3, 64, 40))
    corner = frame.points(torch.tensor([[67.0, 100.0], [40.0, 64.0]]), torch.tensor([0, 1]))
    torch.testing.assert_close(corner, torch.tensor([[33.0, 50.0], [40.0, 64.0]]))
    assert frame.size == (64, 40)
    assert frame.valid_sizes == ((50, 33), (64, 40))
