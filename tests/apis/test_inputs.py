from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llmdet.apis.inputs import collect_images, output_names, readable_images
from llmdet.errors import DataError


def picture(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def test_a_file_is_one_image(tmp_path):
    (image,) = collect_images(str(picture(tmp_path / "cat.JPG")))
    assert (image.source, image.name, image.suffix) == (tmp_path / "cat.JPG", "cat", ".jpg")


def test_a_folder_gives_its_images_in_order_and_nothing_else(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "below/c.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [image.name for image in collect_images(tmp_path)] == ["a", "b"]


def test_files_of_a_folder_that_are_left_out_are_named(tmp_path, caplog):
    for name in ("a.jpg", "b.gif", "c.gif"):
        picture(tmp_path / name)
    with caplog.at_level("INFO", "llmdet"):
        collect_images(tmp_path)
    assert "2 files are left out (.gif)" in caplog.text


def test_a_pil_image_becomes_an_upright_bgr_array():
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    image.getexif()[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    (collected,) = collect_images(image)
    assert collected.source.shape == (4, 2, 3)
    assert (collected.source == (0, 0, 255)).all()


def test_a_list_names_files_beside_it_or_from_here(tmp_path, monkeypatch):
    picture(tmp_path / "beside" / "a.png")
    picture(tmp_path / "here" / "b.png")
    listed = tmp_path / "beside" / "list.txt"
    listed.write_text("a.png\n\nb.png\n")
    monkeypatch.chdir(tmp_path / "here")
    assert [image.name for image in collect_images(listed)] == ["a", "b"]


def test_arrays_are_numbered(tmp_path):
    array = np.zeros((4, 5, 3), dtype=np.uint8)
    inputs = [array, picture(tmp_path / "cat.png"), array]
    names = [image.name for image in collect_images(inputs, first_array=3)]
    assert names == ["00000003", "cat", "00000004"]


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
def test_no_two_images_are_saved_under_one_name(tmp_path_factory, paths):
    folder = tmp_path_factory.getbasetemp() / "collisions"
    for path in paths:
        if not (folder / path).exists():
            picture(folder / path)
    inputs = [folder / path for path in paths]
    if inputs:
        names = [image.name for image in collect_images(inputs)]
        assert len(set(names)) == len(names) == len(paths)
        assert all("/" not in name for name in names)


@pytest.mark.parametrize("url", ["http://host/cat.jpg", "https://host/cat.jpg", "s3://b/cat.jpg"])
def test_urls_are_refused(url, tmp_path):
    with pytest.raises(DataError, match="is a URL; nothing is downloaded"):
        collect_images(url)
    (tmp_path / "list.txt").write_text(f"{url}\n")
    with pytest.raises(DataError, match=r"list\.txt:1 is a URL"):
        collect_images(tmp_path / "list.txt")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*nope\.jpg"):
        collect_images(tmp_path / "nope.jpg")
    with pytest.raises(DataError, match="holds no image"):
        collect_images(tmp_path)
    (tmp_path / "list.txt").write_text("\nnope.jpg\n")
    with pytest.raises(DataError, match=r"list\.txt:2 names nope\.jpg"):
        collect_images(tmp_path / "list.txt")
    with pytest.raises(DataError, match="list of inputs is empty"):
        collect_images([])


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    picture(tmp_path / "good.jpg")
    readable, (fault,) = readable_images(collect_images(tmp_path))
    assert [image.name for image in readable] == ["good"]
    assert "broken.jpg cannot be read (it is no picture" in str(fault)


def test_a_list_that_is_no_utf8_is_named_with_its_line_and_a_byte_order_mark_is_none(tmp_path):
    picture(tmp_path / "a.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfa.png\n")
    assert [image.name for image in collect_images(listed)] == ["a"]
    listed.write_bytes(b"a.png\n\xe9t\xe9.png\n")
    with pytest.raises(DataError, match=r"list\.txt:2 is not UTF-8 \(byte 0xe9\)"):
        collect_images(listed)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read .*Permission denied"):
        collect_images(tmp_path)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((4, 5, 4), np.uint8)],
)
def test_arrays_that_are_no_bgr_images_are_refused(array):
    with pytest.raises(DataError, match="uint8 in BGR order"):
        collect_images(array)


def test_other_things_are_no_images():
    with pytest.raises(DataError, match="not a int"):
        collect_images([3])
