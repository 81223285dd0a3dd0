"""Every picture is shown as a viewer shows it, or refused in one sentence that names it."""

import struct
import zlib

import mmcv
import numpy as np
import pytest
from PIL import Image
from skimage import data

from llmdet.datasets.pictures import check_picture, picture_path, picture_size, read_picture
from llmdet.datasets.transforms import LoadImageFromFile
from llmdet.errors import DataError

BACKENDS = ["cv2", "pillow"]
PHOTO = data.astronaut()[:60, :90]


def load(path, backend="cv2", **settings):
    """As training does, in RGB."""
    loader = LoadImageFromFile(imdecode_backend=backend, **settings)
    return loader.transform({"img_path": str(path)})["img"][..., ::-1]


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "mode"), [("a.jpg", "RGB"), ("a.png", "RGB"), ("a.jpg", "L"), ("a.webp", "RGB")]
)
def test_ordinary_pictures_are_decoded_to_the_bit_as_by_mmcv(tmp_path, backend, name, mode):
    path = save(tmp_path / name, Image.fromarray(PHOTO).convert(mode))
    expected = mmcv.imfrombytes(path.read_bytes(), backend=backend)[..., ::-1]
    assert np.array_equal(load(path, backend), expected)


def alpha(path):
    image = Image.fromarray(PHOTO).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    return save(path / "a.png", image), np.full_like(PHOTO, 255)


def sixteen_bits(path):
    ramp = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    grey = (ramp >> 8).astype(np.uint8)
    return save(path / "a.png", Image.fromarray(ramp)), np.stack([grey] * 3, -1)


def palette(path):
    image = Image.fromarray(PHOTO).quantize(16)
    return save(path / "a.png", image), np.asarray(image.convert("RGB"))


def animated(path):
    frames = [Image.new("RGB", (90, 60), colour) for colour in ("red", "blue")]
    saved = save(path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    return saved, np.asarray(frames[0])


def turned_png(path):
    image = Image.fromarray(PHOTO)
    exif = image.getexif()
    exif[0x0112] = 6
    return save(path / "a.png", image, exif=exif), np.rot90(PHOTO, -1)


def two_colours(path):
    image = Image.fromarray(PHOTO).convert("1")
    return save(path / "a.png", image), np.asarray(image.convert("RGB"))


def cmyk(path):
    image = Image.new("CMYK", (90, 60), (0, 255, 255, 0))
    red = np.broadcast_to(np.array([254, 0, 0], np.uint8), PHOTO.shape)
    return save(path / "a.jpg", image, quality=100, subsampling=0), red


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make", [alpha, sixteen_bits, palette, animated, turned_png, two_colours, cmyk]
)
def test_other_pictures_are_shown_as_a_viewer_does_by_all_programs(tmp_path, make, backend):
    path, expected = make(tmp_path)
    assert np.abs(load(path, backend).astype(int) - expected).max() <= 2
    assert np.array_equal(np.asarray(read_picture(path)), load(path, backend))
    assert picture_size(path) == check_picture(path) == expected.shape[1::-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_photograph_taken_sideways_is_upright(tmp_path, backend):
    image = Image.fromarray(PHOTO)
    exif = image.getexif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", image, exif=exif)
    assert load(path, backend).shape == (90, 60, 3)
    assert picture_size(path) == (60, 90)


def truncated(path, suffix="jpg"):
    whole = save(path / f"whole.{suffix}", Image.fromarray(PHOTO)).read_bytes()
    (path / f"a.{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    return path / f"a.{suffix}"


def no_bytes(path):
    (path / "a.jpg").write_bytes(b"")
    return path / "a.jpg"


def bomb(path):
    size = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    head = struct.pack(">I", len(size)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"\0\0\0\0IDAT")
    return path / "a.png"


def lying(path):
    """A JPEG whose head claims 16384 x 16000 pixels."""
    content = save(path / "whole.jpg", Image.fromarray(PHOTO)).read_bytes()
    size = content.index(b"\xff\xc0") + 5
    claimed = struct.pack(">HH", 16384, 16000)
    (path / "a.jpg").write_bytes(content[:size] + claimed + content[size + 4 :])
    return path / "a.jpg"


FAULTS = {
    "lying JPEG": (lying, r"a.jpg cannot be read \(it claims 16000 x 16384 pixels, for which its"),
    "truncated JPEG": (truncated, "a.jpg cannot be read .*truncated"),
    "truncated PNG": (lambda path: truncated(path, "png"), "a.png cannot be read"),
    "truncated BMP": (lambda path: truncated(path, "bmp"), "a.bmp cannot be read"),
    "truncated WebP": (lambda path: truncated(path, "webp"), "a.webp cannot be read"),
    "no bytes": (no_bytes, "a.jpg cannot be read .*empty"),
    "no file": (lambda path: path / "a.jpg", "a.jpg does not exist"),
    "text": (lambda path: path / "a.txt", "a.txt cannot be read .*no picture"),
    "too large": (bomb, "a.png has 30000 x 30000 pixels"),
    "float": (
        lambda path: save(path / "a.tif", Image.fromarray(np.ones((4, 5), np.float32))),
        "a.tif has floating-point",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_picture_is_named_in_one_sentence_by_every_reader(tmp_path, fault):
    (tmp_path / "a.txt").write_text("no picture")
    make, message = FAULTS[fault]
    path = make(tmp_path)
    readers = [lambda: load(path), lambda: load(path, "pillow"), lambda: read_picture(path)]
    for read in (*readers, lambda: check_picture(path)):
        with pytest.raises(DataError, match=message) as error:
            read()
        assert "\n" not in str(error.value)


def test_the_limit_of_pixels_is_a_setting(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PHOTO))
    with pytest.raises(DataError, match="more than the 100 that are decoded"):
        load(path, max_pixels=100)


def test_no_jpeg_is_too_short_for_its_size(tmp_path):
    for settings in ({"quality": 1}, {"quality": 1, "progressive": True, "optimize": True}):
        path = save(tmp_path / "a.jpg", Image.new("L", (4000, 3000)), **settings)
        assert check_picture(path) == (4000, 3000)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_beyond_pillows_limit_is_decoded(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = save(tmp_path / "a.jpg", Image.fromarray(PHOTO))
    assert load(path, backend).shape == PHOTO.shape
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("size", [(92, 60), (60, 90), (640, 480)])
def test_a_picture_of_another_size_than_its_boxes_count_is_named(tmp_path, size):
    path = save(tmp_path / "a.jpg", Image.fromarray(PHOTO))
    loader = LoadImageFromFile()
    loader.transform({"img_path": str(path), "annotated_size": (91, 60)})  # rounded elsewhere
    wrong = rf"a.jpg has 90 x 60 pixels, but its annotations say {size[0]} x {size[1]}"
    with pytest.raises(DataError, match=wrong):
        loader.transform({"img_path": str(path), "annotated_size": size})


def test_a_zero_in_a_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 3: no file can have the name 'a\\x00.jpg'"):
        picture_path(str(tmp_path), "a\0.jpg", "row 3")


def test_a_panorama_beyond_pillows_limit_is_measured(tmp_path):
    path = save(tmp_path / "a.png", Image.new("1", (20000, 10000)))
    assert picture_size(path) == (20000, 10000)


# --- names that lead out of the folder


@pytest.fixture
def folders(tmp_path):
    for folder in ("data/images", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("data/images/a.png", "data/b.png", "elsewhere/c.png"):
        save(tmp_path / name, Image.fromarray(PHOTO))
    (tmp_path / "data/images/link.png").symlink_to(tmp_path / "elsewhere/c.png")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["../b.png", "../../elsewhere/c.png", "/etc/passwd", "link.png", "a/../../b.png"]
)
def test_a_name_that_leaves_the_folder_is_refused(folders, name):
    with pytest.raises(DataError, match=r"row 3: the picture .* outside the folder") as error:
        picture_path(str(folders / "data/images"), name, "row 3")
    assert "picture_folders" in str(error.value)


def test_a_folder_may_be_permitted_by_name_or_be_a_link_itself(folders):
    images = str(folders / "linked/images")
    assert picture_path(images, "a.png", "row 3") == f"{images}/a.png"
    picture_path(images, "link.png", "row 3", [str(folders / "elsewhere")])
    picture_path(images, "../b.png", "row 3", [str(folders / "linked")])


def test_a_relative_folder_is_the_one_of_the_place_where_a_program_runs(folders, monkeypatch):
    for place in ("data", "linked"):
        monkeypatch.chdir(folders / place)
        assert picture_path("images", "a.png", "row 3") == "images/a.png"
    (folders / "other/images").mkdir(parents=True)
    save(folders / "other/images/a.png", Image.fromarray(PHOTO))
    monkeypatch.chdir(folders / "other")
    assert picture_path("images", "a.png", "row 3") == "images/a.png"
