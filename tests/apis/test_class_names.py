import json

import pytest
from mmengine.config import Config

from llmdet.apis.class_names import config_class_names, dataset_class_names, known_datasets
from llmdet.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("coco", 80, "person"),
        ("lvis", 1203, "aerosol_can"),
        ("voc", 20, "aeroplane"),
        ("objects365v1", 365, "person"),
        ("obj365v2", 365, "Person"),
        ("openimages", 601, "Tortoise"),
        ("cityscapes", 8, "person"),
    ],
)
def test_data_sets_have_their_official_number_of_classes(name, count, first):
    names = dataset_class_names(name)
    assert len(names) == count
    assert names[0] == first


@pytest.mark.parametrize("name", [name for name in known_datasets() if name != "v3det"])
def test_every_known_data_set_has_names(name):
    names = dataset_class_names(name)
    assert names
    assert all(isinstance(entry, str) and entry for entry in names)


def test_v3det_is_read_from_its_annotations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/v3det/annotations/category_name_13204"):
        dataset_class_names("v3det")
    folder = tmp_path / "data" / "v3det" / "annotations"
    folder.mkdir(parents=True)
    (folder / "category_name_13204_v3det_2023_v1.txt").write_text("aardvark\nabacus\n")
    assert dataset_class_names("V3Det") == ("aardvark", "abacus")


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'pets': choose one of .*coco.*lvis.*voc"):
        dataset_class_names(" pets")


def config(dataset):
    return Config({"test_dataloader": {"dataset": dataset}})


def test_a_config_names_its_classes_itself_or_by_its_data_set():
    named = {"type": "CocoDataset", "metainfo": {"classes": ("wheel", "rim")}}
    assert config_class_names(config(named)) == ("wheel", "rim")
    assert len(config_class_names(config({"type": "LVISV1Dataset"}))) == 1203


def test_classes_of_ones_own_data_come_from_its_annotations(tmp_path):
    categories = [{"id": 7, "name": "wheel"}, {"id": 3, "name": "rim"}]
    (tmp_path / "val.json").write_text(json.dumps({"categories": categories}))
    mine = {"type": "CocoDataset", "data_root": str(tmp_path), "ann_file": "val.json"}
    assert config_class_names(config(mine)) == ("wheel", "rim")
    with pytest.raises(ConfigError, match=r"its annotations would be .*test\.json"):
        config_class_names(config({**mine, "ann_file": "test.json"}))


def test_classes_are_found_inside_wrappers():
    wrapped = {"type": "ConcatDataset", "datasets": [{"type": "VOCDataset"}]}
    assert len(config_class_names(config(wrapped))) == 20
    repeated = {"type": "RepeatDataset", "times": 2, "dataset": {"type": "VOCDataset"}}
    assert len(config_class_names(config(repeated))) == 20


def test_sets_of_a_benchmark_have_one_answer_only_if_they_agree():
    pets = {"type": "CocoDataset", "metainfo": {"classes": ("cat", "dog")}}
    same = {"type": "BenchmarkSets", "sets": {"cartoon": pets, "sketch": pets}}
    assert config_class_names(config(same)) == ("cat", "dog")
    different = {"type": "BenchmarkSets", "sets": {"a": pets, "b": {"type": "VOCDataset"}}}
    with pytest.raises(ConfigError, match="have different classes"):
        config_class_names(config(different))


@pytest.mark.parametrize("dataset", [{"type": "Flickr30kDataset"}, {}])
def test_a_config_without_classes_asks_for_a_text(dataset):
    with pytest.raises(ConfigError, match=r"No text was given.*--text"):
        config_class_names(config(dataset))
