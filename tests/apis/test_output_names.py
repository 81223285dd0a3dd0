from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.apis.output_names import output_names, picture_suffix


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/cat.jpg", "x/dog.jpg"], ["cat", "dog"]),
        (["x/left/cat.jpg", "x/right/cat.jpg", "x/dog.jpg"], ["left_cat", "right_cat", "dog"]),
        (["x/cat.jpg", "x/cat.png"], ["cat_jpg", "cat_png"]),
        (["x/cat.jpg", "x/below/cat.jpg"], ["cat", "below_cat"]),
    ],
)
def test_equal_names_get_what_tells_them_apart(paths, expected):
    assert output_names([Path(path) for path in paths]) == expected


@given(
    st.lists(
        st.builds(
            "{}/{}.{}".format,
            st.sampled_from(["a", "a/b", "b", "a_b"]),
            st.sampled_from(["x", "y", "b_x", "x_png"]),
            st.sampled_from(["png", "jpg"]),
        ),
        max_size=12,
    )
)
def test_no_two_images_are_saved_under_one_name(paths):
    names = output_names([Path(path) for path in paths])
    assert len(set(names)) == len(names) == len(paths)
    assert all("/" not in name for name in names)


@pytest.mark.parametrize(("name", "suffix"), [("a.JPG", ".jpg"), ("a.gif", ".png"), ("a", ".png")])
def test_pictures_with_boxes_are_of_a_format_that_every_viewer_opens(name, suffix):
    assert picture_suffix(Path(name)) == suffix
