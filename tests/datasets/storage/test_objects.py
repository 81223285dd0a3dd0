"""Objects behind URLs: read through a cache, asked for again, named in one sentence."""

import json
import pickle

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.pictures import picture_path
from llmdet.datasets.storage.objects import ObjectStore, store_of
from llmdet.datasets.storage.reading import join, read_content
from llmdet.datasets.storage.remote_jsonl import RemoteJsonl
from llmdet.errors import ConfigError, DataError, StorageError

from .conftest import picture, row

PIPELINE = [dict(type="LoadImageFromFile", imdecode_backend="pillow")]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("llmdet")


def lines(*rows) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in rows)


def data_set(root, **settings):
    settings = dict(data_prefix=dict(img="images/"), pipeline=PIPELINE) | settings
    return ODVGDataset(data_root=root, ann_file="train.jsonl", **settings)


def test_a_data_set_behind_a_url_gives_what_its_files_give(memory, tmp_path):
    rows = lines(*(row(f"{number}.png") for number in range(5)))
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / f"images/{number}.png").write_bytes(picture(number))
        memory.pipe(f"/data/images/{number}.png", picture(number))
    (tmp_path / "train.jsonl").write_bytes(rows)
    memory.pipe("/data/train.jsonl", rows)
    here, there = data_set(str(tmp_path)), data_set("memory://data")
    assert np.array_equal(here.aspect_ratios, there.aspect_ratios)
    for index in (3, 0, 4):
        a, b = here[index], there[index]
        assert b.pop("img_path") == f"memory://data/images/{index}.png"
        assert a.pop("img_path")
        assert np.array_equal(a.pop("img"), b.pop("img"))
        assert repr(a) == repr(b)


def test_s3_is_read_by_workers_through_one_cache(bucket, tmp_path):
    files, options = bucket
    files.pipe("pictures/data/train.jsonl", lines(*(row(f"{i}.png") for i in range(6))))
    for number in range(6):
        files.pipe(f"pictures/data/images/{number}.png", picture(number))
    settings = options | {"cache_dir": str(tmp_path / "objects")}
    dataset = data_set("s3://pictures/data", backend_args=settings)
    assert len(dataset) == 6
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=lambda x: x)
    assert [int(sample["img"][0, 0, 0]) for sample in loader] == list(range(6))
    files.rm("pictures/data/images", recursive=True)
    assert int(dataset[5]["img"][0, 0, 0]) == 5
    first = picture_path("s3://pictures/data/images", "9.png", "row 9")
    with pytest.raises(FileNotFoundError):
        read_content(first, settings)


def test_a_coco_data_set_finds_file_and_pictures_behind_a_url(memory):
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 20]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    memory.pipe("/data/val.json", json.dumps(content).encode())
    memory.pipe("/data/images/a.png", picture(7))
    settings = dict(data_root="memory://data/", data_prefix=dict(img="images"), pipeline=PIPELINE)
    dataset = CocoDataset(ann_file="val.json", test_mode=True, **settings)
    assert dataset[0]["img_path"] == "memory://data/images/a.png"
    assert dataset[0]["img"].max() == 7
    with pytest.raises(DataError, match=r"cannot read memory://data/other.json: it does not exist"):
        CocoDataset(ann_file="other.json", test_mode=True, **settings)


def test_a_lost_picture_is_named_in_one_sentence_and_counts_as_a_broken_row(memory):
    memory.pipe("/data/train.jsonl", lines(row("gone.png"), row("a.png")))
    memory.pipe("/data/images/a.png", picture(1))
    with pytest.raises(
        DataError,
        match=r"^memory://data/train.jsonl:1: the picture memory://data/images/gone.png does not",
    ):
        data_set("memory://data").prepare_data(0)
    tolerant = data_set("memory://data", max_bad_rows=1)
    assert tolerant.prepare_data(0) is None
    assert tolerant.dropped.counts == {"broken record": 1}


class Flaky:
    """A filesystem that fails some times first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def cat_file(self, path, **place):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return b"content"

    def _strip_protocol(self, url):
        return url


@pytest.fixture
def flaky(monkeypatch):
    def install(*failures):
        files = Flaky(*failures)
        place = "llmdet.datasets.storage.objects._filesystem"
        monkeypatch.setattr(place, lambda url, options: files)
        return files

    return install


def test_what_fails_is_asked_for_again_with_growing_waits(flaky, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    files = flaky(ConnectionError("reset"), TimeoutError(), OSError("503 Slow Down"))
    assert ObjectStore(attempts=4, first_wait=1).get("s3://b/a") == b"content"
    assert files.calls == 4
    assert all(0.75 <= wait / 2**n <= 1.25 for n, wait in enumerate(waits))
    assert len(waits) == 3


def test_a_server_that_never_answers_ends_the_run_and_is_no_broken_row(flaky, memory):
    memory.pipe("/data/train.jsonl", lines(row("a.png")))
    settings = {"attempts": 2, "first_wait": 0}
    dataset = data_set("memory://data", max_bad_rows=5, backend_args=settings)
    files = flaky(*[ConnectionError("no route to host")] * 9)
    with pytest.raises(StorageError) as caught:
        dataset.prepare_data(0)
    assert str(caught.value) == (
        "memory://data/train.jsonl cannot be read (no route to host) after 2 attempt(s): see "
        "whether its server answers, then continue with --resume"
    )
    assert files.calls == 2
    assert not dataset.dropped.counts


def test_what_must_not_be_read_is_asked_for_once(flaky):
    files = flaky(PermissionError("Access Denied"))
    with pytest.raises(StorageError, match=r"s3://b/a must not be read \(Access Denied\)"):
        ObjectStore(first_wait=0).get("s3://b/a")
    assert files.calls == 1


@pytest.mark.parametrize(
    ("url", "settings", "sentence"),
    [
        ("ftp://a/b", {}, "'ftp' is none of the protocols"),
        ("s3://a/b", {"cache_size": 3}, "cache_size"),
        ("s3://a/b", {"cache_gb": -1}, "cache_gb=-1"),
    ],
)
def test_a_wrong_setting_is_one_sentence(url, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        store_of(url, settings)


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "a/../../b.png", "/etc/passwd", "s3://other/a.png", "https://x.org/a.png"],
)
def test_no_name_leads_out_of_a_url_unless_its_place_is_named(name):
    with pytest.raises(DataError, match="outside the folder of the pictures"):
        picture_path("s3://bucket/images", name, "row 3")


def test_a_place_that_is_named_may_be_another_url():
    roots = ["s3://other/"]
    assert picture_path("s3://bucket/x", "s3://other/a.png", "row", roots) == "s3://other/a.png"
    assert picture_path("images", "s3://other/a.png", "row", roots) == "s3://other/a.png"
    with pytest.raises(DataError, match="outside"):
        picture_path("s3://bucket/images", "s3://bucket/images-secret/a.png", "row")
    with pytest.raises(DataError, match="outside"):
        picture_path("images", "s3://bucket/a.png", "row")


def test_paths_are_joined_below_folders_and_urls():
    assert (
        join("s3://b/data/", "a.jsonl") == join("s3://b/data", "a.jsonl") == "s3://b/data/a.jsonl"
    )
    assert join("s3://b/data", "gs://c/a") == "gs://c/a"
    assert join("data/mine", "a.jsonl") == "data/mine/a.jsonl"
    assert join("data", "/a") == join("", "/a") == "/a"


def test_remote_jsonl_is_indexed_once_and_again_when_it_changes(memory, caplog):
    caplog.set_level("INFO")
    memory.pipe("/rows.jsonl", lines({"n": 0}, {"n": 1}) + b"\n" + lines({"n": 2}))
    rows = RemoteJsonl("memory://rows.jsonl")
    assert [entry["n"] for entry in rows] == [0, 1, 2]
    assert rows.location(2) == "memory://rows.jsonl:4"
    assert RemoteJsonl("memory://rows.jsonl")[-1] == {"n": 2}
    assert pickle.loads(pickle.dumps(rows))[1] == {"n": 1}
    assert len([r for r in caplog.records if "indexed 3 rows" in r.message]) == 1
    memory.pipe("/rows.jsonl", lines({"n": 7}))
    assert [entry["n"] for entry in RemoteJsonl("memory://rows.jsonl")] == [7]


def test_remote_jsonl_that_is_broken_missing_or_compressed_is_refused_as_a_file_is(memory):
    memory.pipe("/rows.jsonl", b'{"n": 0}\nnonsense\n')
    with pytest.raises(DataError, match=r"memory://rows.jsonl:2: not valid JSON"):
        RemoteJsonl("memory://rows.jsonl")
    tolerant = RemoteJsonl("memory://rows.jsonl", max_bad_rows=1)
    assert tolerant.bad_locations == ("memory://rows.jsonl:2",)
    memory.pipe("/rows.jsonl.gz", b"\x1f\x8b123456")
    with pytest.raises(DataError, match="is gzip-compressed"):
        RemoteJsonl("memory://rows.jsonl.gz")
    with pytest.raises(DataError, match="does not exist"):
        RemoteJsonl("memory://gone.jsonl")
