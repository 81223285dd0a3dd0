"""Lines of TSV files, read where they lie."""

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from llmdet.datasets.pictures import picture_size
from llmdet.datasets.storage.reading import read_content
from llmdet.datasets.storage.tsv import TsvFile, split_line
from llmdet.datasets.transforms.loading import LoadImageFromFile
from llmdet.errors import DataError

SIZES = [(40, 30), (50, 20), (16, 64)]


def jpeg(size):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """A file of pictures with its lineidx, the contents, and the first byte of every line."""
    contents = [jpeg(size) for size in SIZES]
    lines = [b"%d\t%s\n" % (n, base64.b64encode(each)) for n, each in enumerate(contents)]
    starts = np.cumsum([0, *map(len, lines)])[:-1].tolist()
    path = tmp_path / "a.images.tsv"
    path.write_bytes(b"".join(lines))
    (tmp_path / "a.images.tsv.lineidx").write_text("".join(f"{start}\n" for start in starts))
    return path, contents, starts


def test_a_line_is_read_by_its_number_and_by_its_byte(pictures):
    path, contents, starts = pictures
    file = TsvFile(path)
    assert file.offsets.tolist() == starts
    assert file[2] == file.line_at(starts[2]) == [b"2", base64.b64encode(contents[2])]
    assert [key for key, _ in file] == [b"0", b"1", b"2"]


def test_a_file_without_lineidx_is_searched_for_its_lines(pictures):
    path, _, starts = pictures
    path.with_name("a.images.tsv.lineidx").unlink()
    assert TsvFile(path).offsets.tolist() == starts


def test_parts_that_are_cut_anywhere_are_one_file(pictures):
    path, contents, starts = pictures
    whole = path.read_bytes()
    cuts = [0, starts[1] + 5, starts[1] + 40, len(whole)]
    for number, (low, high) in enumerate(itertools.pairwise(cuts)):
        path.with_name(f"a.images_part_{number}.tsv").write_bytes(whole[low:high])
    path.unlink()
    for start, content in zip(starts, contents, strict=True):
        assert read_content(f"{path}/{start}") == content
    path.with_name("a.images.tsv.lineidx").unlink()
    assert TsvFile(path).offsets.tolist() == starts
    path.with_name("a.images_part_1.tsv").unlink()
    with pytest.raises(DataError, match=r"of its parts there are \[0, 2\]"):
        TsvFile(path)


def test_pipelines_decode_a_picture_where_it_lies(pictures):
    path, _, starts = pictures
    for start, (width, height) in zip(starts, SIZES, strict=True):
        address = f"{path}/{start}"
        assert picture_size(address) == (width, height)
        assert LoadImageFromFile()({"img_path": address})["img"].shape == (height, width, 3)


def test_what_is_no_address_stays_a_path(tmp_path):
    assert split_line("/a/b.tsv/12") == ("/a/b.tsv", 12)
    assert split_line("/a/b.tsv/x.jpg") is None
    assert split_line("s3://a/b.tsv/12") is None
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "folder.tsv" / "12").write_bytes(b"")
    assert split_line(f"{tmp_path}/folder.tsv/12") is None


def test_wrong_addresses_and_damaged_lines_are_named(pictures, tmp_path):
    path, _, starts = pictures
    with pytest.raises(DataError, match=r"byte 7: no line begins there"):
        read_content(f"{path}/7")
    with pytest.raises(DataError, match=r"byte 999999: the file has"):
        read_content(f"{path}/999999")
    with pytest.raises(DataError, match=r"none.tsv/0 does not exist"):
        picture_size(tmp_path / "none.tsv/0")
    path.write_bytes(path.read_bytes().replace(b"1\t", b"1 ", 1))
    with pytest.raises(DataError, match=rf"byte {starts[1]} has 1 columns"):
        read_content(f"{path}/{starts[1]}")
    damaged = tmp_path / "b.tsv"
    damaged.write_bytes(b"0\t%%%\n")
    with pytest.raises(DataError, match="byte 0 holds no base64"):
        read_content(f"{damaged}/0")


@pytest.mark.parametrize("text", ["0\n5\n99999999\n", "0\nx\n", "3\n5\n"])
def test_a_lineidx_of_another_file_is_refused(pictures, text):
    path, _, _ = pictures
    path.with_name("a.images.tsv.lineidx").write_text(text)
    with pytest.raises(DataError, match="lineidx"):
        len(TsvFile(path))
