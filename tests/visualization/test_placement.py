import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmdet.visualization.placement import place_labels

SIZE = (200, 100)


def shared_area(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def test_a_label_sits_on_top_of_its_box():
    placed = place_labels(np.array([[50.0, 40, 120, 90]]), np.array([[30, 10]]), SIZE)
    assert placed.tolist() == [[50, 30, 80, 40]]


def test_a_label_moves_below_its_box_when_there_is_no_room_above():
    placed = place_labels(np.array([[50.0, 3, 120, 90]]), np.array([[30, 10]]), SIZE)
    assert placed.tolist() == [[50, 90, 80, 100]]


def test_a_label_of_the_whole_picture_lies_inside():
    placed = place_labels(np.array([[0.0, 0, 200, 100]]), np.array([[30, 10]]), SIZE)
    assert placed.tolist() == [[0, 0, 30, 10]]


def test_labels_of_the_same_box_keep_off_each_other():
    boxes = np.array([[50.0, 40, 120, 90]] * 6)
    placed = place_labels(boxes, np.array([[30, 10]] * 6), SIZE).tolist()
    pairs = [(a, b) for i, a in enumerate(placed) for b in placed[:i]]
    assert all(shared_area(a, b) == 0 for a, b in pairs)


def test_a_label_keeps_off_the_object_above_its_box():
    boxes = np.array([[50.0, 45, 120, 60], [50, 20, 120, 44]])
    sizes = np.array([[30, 10], [30, 10]])
    placed = place_labels(boxes, sizes, SIZE)
    assert shared_area(placed[0], boxes[1]) == 0
    assert shared_area(placed[0], boxes[0]) == 0
    assert placed[1].tolist() == [50, 10, 80, 20]


def test_a_label_covers_an_object_rather_than_another_label():
    boxes = np.array([[0.0, 10, 200, 100], [0, 10, 200, 100], [40, 0, 160, 10]])
    placed = place_labels(boxes, np.array([[200, 10]] * 3), SIZE).tolist()
    assert all(shared_area(a, b) == 0 for i, a in enumerate(placed) for b in placed[:i])


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
def test_labels_stay_inside_the_picture_and_keep_their_size(rows):
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in rows]).reshape(-1, 4)
    sizes = np.array([row[4:] for row in rows]).reshape(-1, 2)
    placed = place_labels(boxes, sizes, SIZE, gap=2)
    assert (placed[:, :2] >= 0).all()
    assert (placed[:, 2:] <= SIZE).all()
    assert (placed[:, 2:] - placed[:, :2] == sizes).all()
