import numpy as np

from llmdet.apis.merge import nms, unclaimed

BOXES = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 30, 10]], dtype=np.float32)
SCORES = np.array([0.5, 0.9, 0.7, 0.1], dtype=np.float32)


def test_the_best_of_overlapping_boxes_stays():
    assert nms(BOXES, SCORES, 0.8).tolist() == [1, 2, 3]
    assert nms(BOXES, SCORES, 0.5).tolist() == [1, 3]
    assert nms(BOXES[:0], SCORES[:0], 0.5).tolist() == []


def test_a_better_box_of_an_unwanted_class_claims_what_it_lies_on():
    assert unclaimed(BOXES, SCORES, np.array([False, True, False, False]), 0.8).tolist() == [2, 3]
    assert unclaimed(BOXES, SCORES, np.array([False, True, False, False]), 0.5).tolist() == [3]
    # The unwanted box is the worse one here.
    assert unclaimed(BOXES, SCORES, np.array([True, False, False, False]), 0.5).tolist() == [
        1, 2, 3
    ]  # fmt: skip
    assert unclaimed(BOXES, SCORES, np.ones(4, bool), 0.5).tolist() == []
