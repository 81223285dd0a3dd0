import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmdet.visualization.placement import leader, place_labels

SIZE = (200, 100)


def shared_area(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def placed(boxes, sizes):
    placement = place_labels(np.array(boxes, float), np.array(sizes), SIZE)
    assert placement.fits.all()
    return placement.places.tolist()


def test_a_label_sits_on_top_of_its_box():
    assert placed([[50, 40, 120, 90]], [[30, 10]]) == [[50, 30, 80, 40]]


def test_a_label_moves_below_its_box_when_there_is_no_room_above():
    assert placed([[50, 3, 120, 90]], [[30, 10]]) == [[50, 90, 80, 100]]


def test_a_label_of_the_whole_picture_lies_inside():
    assert placed([[0, 0, 200, 100]], [[30, 10]]) == [[0, 0, 30, 10]]


def test_labels_of_the_same_box_keep_off_each_other_and_off_the_box():
    box = [50, 40, 120, 60]
    labels = placed([box] * 6, [[30, 10]] * 6)
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[:i]]
    assert all(shared_area(a, b) == 0 for a, b in pairs)
    assert all(shared_area(label, box) == 0 for label in labels)


def test_a_label_keeps_off_the_object_above_its_box():
    boxes = [[50, 45, 120, 60], [50, 20, 120, 44]]
    labels = placed(boxes, [[30, 10], [30, 10]])
    assert all(shared_area(label, box) == 0 for label in labels for box in boxes)
    assert labels[1] == [50, 10, 80, 20]


def test_labels_without_a_free_place_are_left_out_and_the_first_ones_stay():
    boxes = np.array([[0.0, 0, 200, 100]] * 12)
    placement = place_labels(boxes, np.array([[120, 30]] * 12), SIZE)
    assert placement.fits[0]
    assert 0 < placement.fits.sum() < 12


def test_a_distant_label_has_a_line_to_its_box():
    line = leader(np.array([10.0, 10, 40, 20]), np.array([60.0, 40, 90, 80]))
    assert line.tolist() == [[40, 20], [60, 40]]


@given(
    st.lists(
        st.tuples(
            st.floats(-50, 250),
            st.floats(-50, 150),
            st.floats(0, 200),
            st.floats(0, 100),
            st.integers(1, 200),
            st.integers(1, 100),
        ),
        max_size=12,
    )
)
def test_labels_stay_inside_the_picture_and_never_overlap(rows):
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in rows]).reshape(-1, 4)
    sizes = np.array([row[4:] for row in rows]).reshape(-1, 2)
    placement = place_labels(boxes, sizes, SIZE)
    labels = placement.places[placement.fits]
    assert (labels[:, :2] >= 0).all()
    assert (labels[:, 2:] <= SIZE).all()
    assert (labels[:, 2:] - labels[:, :2] == sizes[placement.fits]).all()
    assert all(shared_area(a, b) == 0 for i, a in enumerate(labels) for b in labels[:i])
