"""Tar shards give samples and pictures in any order, found by an index that is made once."""

import json
import pickle
import tarfile

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.pictures import check_picture, picture_size
from llmdet.datasets.storage.reading import read_content
from llmdet.datasets.storage.shard_index import _index_places
from llmdet.datasets.storage.shards import TarRows, TarShards, expand_shards, split_member
from llmdet.errors import DataError

from .conftest import picture, row, sample_members, write_tar

PIPELINE = [dict(type="LoadImageFromFile", imdecode_backend="pillow")]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("llmdet")


@pytest.fixture
def two_shards(tmp_path):
    """Samples 0 to 4 in two shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "a-00.tar", sample_members(["000", "001", "002"]))
    write_tar(folder / "a-01.tar", sample_members(["003", "004"], tags=["ball"]))
    return folder


def test_a_pattern_stands_for_numbered_shards():
    assert expand_shards("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand_shards("{0..1}/a{0..1}.tar")[1:3] == ["0/a1.tar", "1/a0.tar"]
    assert expand_shards("a.tar") == ["a.tar"]
    with pytest.raises(DataError, match=r"the range \{3..1\} is empty"):
        expand_shards("a-{3..1}.tar")


def test_samples_of_shards_are_rows_with_pictures(two_shards):
    dataset = ODVGDataset(
        data_root=str(two_shards), ann_file="a-{00..01}.tar", data_prefix={}, pipeline=PIPELINE
    )
    assert len(dataset) == 5
    assert np.allclose(dataset.aspect_ratios, 1.5)
    for index in (4, 0, 3):
        sample = dataset[index]
        assert sample["img_path"] == f"{two_shards}/a-0{index // 3}.tar/00{index}.png"
        assert (sample["img"] == index).all()
        assert sample["tags"] == (["ball"] if index > 2 else [])
    assert pickle.loads(pickle.dumps(dataset))[2]["img"].max() == 2


def test_pictures_in_shards_are_found_by_the_names_of_a_jsonl(tmp_path, two_shards):
    rows = [row("004.png"), row("001.png"), row("gone.png")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    dataset = ODVGDataset(
        data_root=str(tmp_path),
        ann_file="rows.jsonl",
        data_prefix=dict(img="shards/a-{00..01}.tar"),
        pipeline=PIPELINE,
    )
    assert [int(dataset[index]["img"][0, 0, 0]) for index in range(2)] == [4, 1]
    with pytest.raises(
        DataError, match=r"rows.jsonl:3: .*a-\{00..01\}.tar has no picture gone.png"
    ):
        dataset[2]


def test_rows_may_name_the_shard_as_if_it_were_a_folder(tmp_path, two_shards):
    rows = [row("a-01.tar/004.png"), row("a-01.tar/../../secret.png"), row("a-00.tar/004.png")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    dataset = ODVGDataset(
        ann_file=str(tmp_path / "rows.jsonl"),
        data_prefix=dict(img=f"{two_shards}/"),
        pipeline=PIPELINE,
    )
    assert dataset[0]["img"].max() == 4
    with pytest.raises(DataError, match="outside the folder"):
        dataset.prepare_data(1)
    with pytest.raises(DataError, match=r"a-00.tar/004.png does not exist"):
        dataset.prepare_data(2)


def test_a_member_is_read_by_its_address_alone(two_shards):
    address = f"{two_shards}/a-00.tar/002.png"
    assert read_content(address) == picture(2)
    assert picture_size(address) == check_picture(address) == (60, 40)
    assert split_member(address) == (f"{two_shards}/a-00.tar", "002.png")
    (two_shards / "folder.tar").mkdir()
    assert split_member(f"{two_shards}/folder.tar/a.png") is None


def test_a_name_in_two_shards_is_refused_where_no_shard_is_named(two_shards):
    write_tar(two_shards / "a-02.tar", {"000.png": picture(9)})
    shards = TarShards(f"{two_shards}/a-{{00..02}}.tar")
    with pytest.raises(DataError, match=r"row 1: .*a-00.tar and .*a-02.tar both hold 000.png"):
        shards.address("000.png", "row 1")
    assert read_content(f"{two_shards}/a-02.tar/000.png") == picture(9)
    assert read_content(f"{two_shards}/a-00.tar/000.png") == picture(0)


def test_the_index_is_made_once_and_again_when_a_shard_changes(two_shards, caplog):
    caplog.set_level("INFO")
    pattern = f"{two_shards}/a-{{00..01}}.tar"
    assert len(TarRows(pattern)) == len(TarRows(pattern)) == 5
    made = [record for record in caplog.records if record.message.startswith("indexed")]
    assert len(made) == 1
    write_tar(two_shards / "a-01.tar", sample_members(["007"]))
    assert len(TarRows(pattern)) == 4


def test_where_the_folder_cannot_be_written_the_index_lies_in_the_cache(two_shards, monkeypatch):
    module = "llmdet.datasets.storage.shard_index._index_places"
    (two_shards / "file").write_text("")
    cached = _index_places([f"{two_shards}/a-00.tar"])[1]
    monkeypatch.setattr(module, lambda shards: (two_shards / "file" / "a.index", cached))
    assert len(TarRows(f"{two_shards}/a-00.tar")) == 3
    assert cached.exists()


def test_a_shard_that_changes_under_its_index_is_noticed_at_the_member(two_shards):
    rows = TarRows(f"{two_shards}/a-00.tar")
    write_tar(two_shards / "a-00.tar", sample_members(["001", "000", "002"]))
    with pytest.raises(DataError, match=r"a-00.tar changed since it was indexed"):
        rows[0]


@pytest.mark.parametrize("damage", ["cut", "header", "compressed", "missing"])
def test_a_damaged_shard_is_named_and_never_read_in_part(two_shards, damage):
    path = two_shards / "a-00.tar"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: 512 * 3 + 20])
    elif damage == "header":
        with tarfile.open(path) as archive:
            second = archive.getmembers()[2].offset
        path.write_bytes(content[:second] + b"\xff" * 512 + content[second + 512 :])
    elif damage == "compressed":
        with tarfile.open(path, "w:gz"):
            pass
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"the shard .*a-00.tar (is no whole|does not exist)"):
        TarRows(str(path))


def test_broken_samples_are_counted_and_pictures_without_a_json_said(tmp_path, caplog):
    members = sample_members(["000"]) | {
        "001.png": picture(1),
        "001.json": b"[1, 2",
        "002.json": json.dumps(row()).encode(),
        "003.jpg": picture(3),
        "notes.txt": b"not a part of a sample",
    }
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"a.tar/001.png: .*; 2 sample\(s\) are broken"):
        TarRows(str(path))
    rows = TarRows(str(path), max_bad_rows=2)
    assert len(rows) == 1
    assert rows.bad_locations == (f"{path}/001.png", f"{path}/002.json")
    assert "1 picture(s) have no json" in caplog.text


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.png", "folder.x/" + "n" * 120 + "/b.seg.png", "Überbär/ä.png"])
def test_names_of_every_kind_of_tar_are_read(tmp_path, form, name):
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        (tmp_path / "file").write_bytes(picture(5))
        archive.add(tmp_path / "file", name)
    assert read_content(f"{tmp_path}/a.tar/{name}") == picture(5)


def test_shards_on_s3_are_read_by_ranges_through_the_cache(bucket, two_shards, tmp_path):
    files, options = bucket
    for path in two_shards.glob("*.tar"):
        files.put(str(path), f"pictures/{path.name}")
    settings = options | {"cache_dir": str(tmp_path / "objects")}
    dataset = ODVGDataset(
        ann_file="s3://pictures/a-{00..01}.tar",
        data_prefix={},
        pipeline=PIPELINE,
        backend_args=settings,
    )
    assert [int(dataset[index]["img"][0, 0, 0]) for index in (4, 1)] == [4, 1]
    assert dataset[1]["img_path"] == "s3://pictures/a-00.tar/001.png"
    sizes = [path.stat().st_size for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert max(sizes) < 2000  # members, never whole shards
