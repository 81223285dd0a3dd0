from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmdet.apis.images import expand, fault_of, read_array
from llmdet.errors import ConfigError, DataError


def picture(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def stems(entry):
    return [path.stem for path in expand(entry)]


def test_a_file_is_one_image(tmp_path):
    assert list(expand(str(picture(tmp_path / "cat.JPG")))) == [tmp_path / "cat.JPG"]


def test_a_folder_gives_its_images_in_order_and_nothing_else(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "below/c.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert stems(tmp_path) == ["a", "b"]


def test_files_of_a_folder_that_are_left_out_are_named(tmp_path, caplog):
    picture(tmp_path / "a.jpg")
    for name in ("b.heic", "c.heic"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level("INFO", "llmdet"):
        assert stems(tmp_path) == ["a"]
    assert "2 files are left out (.heic)" in caplog.text


def test_a_pil_image_becomes_an_upright_rgb_array():
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    image.getexif()[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    (pixels,) = expand(image)
    assert pixels.shape == (4, 2, 3)
    assert (pixels == (255, 0, 0)).all()


def test_arrays_are_rgb_unless_said_otherwise():
    array = np.zeros((2, 3, 3), np.uint8)
    array[..., 0] = 255
    assert (read_array(array) == (255, 0, 0)).all()
    assert (read_array(array, "bgr") == (0, 0, 255)).all()
    with pytest.raises(ConfigError, match="'gbr': choose one of rgb, bgr"):
        read_array(array, "gbr")


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((2, 3), 7, np.uint8), (7, 7, 7)),
        (np.full((2, 3, 1), 7, np.uint8), (7, 7, 7)),
        (np.full((2, 3), 7 << 8, np.uint16), (7, 7, 7)),
        (np.full((2, 3, 4), (9, 8, 7, 255), np.uint8), (9, 8, 7)),
        (np.full((2, 3, 4), (9, 8, 7, 0), np.uint8), (255, 255, 255)),  # nothing but paper
    ],
)
def test_grey_transparent_and_deep_arrays_become_colour(array, pixel):
    assert (read_array(array) == pixel).all()


def test_a_list_names_files_beside_it_or_from_here(tmp_path, monkeypatch):
    picture(tmp_path / "beside" / "a.png")
    picture(tmp_path / "here" / "b.png")
    listed = tmp_path / "beside" / "list.txt"
    listed.write_text("a.png\n\nb.png\n")
    monkeypatch.chdir(tmp_path / "here")
    assert stems(listed) == ["a", "b"]


@pytest.mark.parametrize("url", ["http://host/cat.jpg", "https://host/cat.jpg", "s3://b/cat.jpg"])
def test_urls_are_refused(url, tmp_path):
    with pytest.raises(DataError, match="is a URL; nothing is downloaded"):
        list(expand(url))
    (tmp_path / "list.txt").write_text(f"{url}\n")
    with pytest.raises(DataError, match=r"list\.txt:1 is a URL"):
        list(expand(tmp_path / "list.txt"))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*nope\.jpg"):
        list(expand(tmp_path / "nope.jpg"))
    with pytest.raises(DataError, match="holds no image"):
        list(expand(tmp_path))
    (tmp_path / "list.txt").write_text("\nnope.jpg\n")
    with pytest.raises(DataError, match=r"list\.txt:2 names nope\.jpg"):
        list(expand(tmp_path / "list.txt"))


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    picture(tmp_path / "good.jpg")
    assert fault_of(tmp_path / "good.jpg") is None
    assert "broken.jpg cannot be read (it is no picture" in str(fault_of(tmp_path / "broken.jpg"))


def test_a_list_that_is_no_utf8_is_named_with_its_line_and_a_byte_order_mark_is_none(tmp_path):
    picture(tmp_path / "a.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfa.png\n")
    assert stems(listed) == ["a"]
    listed.write_bytes(b"a.png\n\xe9t\xe9.png\n")
    with pytest.raises(DataError, match=r"list\.txt:2 is not UTF-8 \(byte 0xe9\)"):
        list(expand(listed))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read .*Permission denied"):
        list(expand(tmp_path))


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5, 3)), np.zeros((4, 5, 2), np.uint8), np.zeros((1, 4, 5, 3), np.uint8)],
)
def test_arrays_that_are_no_images_are_refused(array):
    with pytest.raises(DataError, match="uint8 in RGB order"):
        read_array(array)
    with pytest.raises(DataError, match="has no pixel"):
        read_array(np.zeros((0, 5, 3), np.uint8))


def test_other_things_are_no_images():
    with pytest.raises(DataError, match="not a int"):
        list(expand(3))
