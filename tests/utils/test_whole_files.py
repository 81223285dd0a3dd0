"""Files are replaced by whole ones or not at all."""

import pytest

from llmdet.utils.whole_files import whole_file, whole_folder, written_whole


class Killed(BaseException):
    pass


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_that_is_replaced_keeps_its_content_until_the_new_one_is_whole(tmp_path, durable):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with written_whole(path, durable=durable) as temporary:
            temporary.write_text("ne")
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert path.read_text() == "old"
    with written_whole(path, durable=durable) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_two_writers_of_one_file_do_not_write_into_each_other(tmp_path):
    path = tmp_path / "new folder" / "file"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first")
        second.write(b"second, longer")
    assert path.read_bytes() == b"first"  # whose block ended last
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_folder_is_there_once_it_is_whole(tmp_path):
    path = tmp_path / "folder"

    def write_half() -> None:
        with whole_folder(path) as temporary:
            (temporary / "first").write_text("half")
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert not path.exists()
    with whole_folder(path) as temporary:
        assert not list(temporary.iterdir())
        (temporary / "second").write_text("whole")
    assert [file.name for file in tmp_path.rglob("*")] == ["folder", "second"]
