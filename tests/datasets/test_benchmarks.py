"""Data sets of benchmarks."""

import json
import pickle

import pytest
from mmengine.structures import BaseDataElement

from llmdet.errors import DataError
from llmdet.registry import DATASETS

IMAGE = {"file_name": "g/1.jpg", "width": 20, "height": 10}


class Pack:
    """The end of a pipeline: keeps the fields as meta information."""

    def __call__(self, results):
        return {"inputs": None, "data_samples": BaseDataElement(metainfo=results)}


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def build(kind, ann_file, **settings):
    return DATASETS.build(
        {
            "type": kind,
            "ann_file": ann_file,
            "data_prefix": {"img": "images"},
            "pipeline": [],
            "test_mode": True,
            **settings,
        }
    )


def test_an_ovdeval_image_asks_for_its_true_and_its_false_names_once_each(tmp_path):
    content = {
        "images": [{**IMAGE, "id": 0, "text": ["red cat", "dog"], "neg_text": ["dog", "cup"]}],
        "categories": [
            {"id": 3, "name": "cup"},
            {"id": 4, "name": "dog"},
            {"id": 0, "name": "red cat"},
        ],
        "annotations": [],
    }
    info = build("OVDEvalDataset", write(tmp_path / "a.json", content)).get_data_info(0)
    assert info["text"] == ("red cat", "dog", "cup")
    assert info["category_ids"] == [0, 4, 3]
    assert info["img_path"] == "images/g/1.jpg"
    assert info["custom_entities"]


def test_an_ovdeval_name_without_category_is_an_error(tmp_path):
    content = {"images": [{**IMAGE, "id": 0, "text": ["ghost"]}], "categories": []}
    with pytest.raises(DataError, match="ghost"):
        build("OVDEvalDataset", write(tmp_path / "a.json", content))


def test_omnilabel_images_get_the_descriptions_that_list_them(tmp_path):
    content = {
        "images": [{"id": 5, "file_name": "5.jpg"}, {"id": 6, "file_name": "6.jpg"}],
        "descriptions": [
            {"id": 9, "text": "a cat", "image_ids": [6]},
            {"id": 8, "text": "dog", "image_ids": [5, 6]},
        ],
    }
    data = build("OmniLabelDataset", write(tmp_path / "a.json", content))
    assert data.get_data_info(1)["category_ids"] == [9, 8]
    assert data.get_data_info(0)["text"] == ("dog",)


@pytest.fixture
def d3_file(tmp_path):
    return write(
        tmp_path / "d3.json",
        {
            "images": [{**IMAGE, "id": 0}],
            "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
            "annotations": [],
        },
    )


def test_a_d3_image_asks_for_the_descriptions_of_its_group(tmp_path, d3_file):
    (tmp_path / "images.pkl").write_bytes(pickle.dumps({0: {"group_id": 4}}))
    (tmp_path / "groups.pkl").write_bytes(pickle.dumps({4: {"inner_sent_id": [2]}}))
    prefix = {"img": "images", "anno": str(tmp_path)}
    data = build("D3Dataset", d3_file, data_prefix=prefix)
    assert data.get_data_info(0)["text"] == ("two",)


def test_without_groups_a_d3_image_asks_for_all_descriptions(d3_file):
    assert build("D3Dataset", d3_file).get_data_info(0)["category_ids"] == [1, 2]


class Malice:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, d3_file, capsys):
    (tmp_path / "images.pkl").write_bytes(pickle.dumps(Malice()))
    with pytest.raises(DataError, match="plain data"):
        build("D3Dataset", d3_file, data_prefix={"img": "", "anno": str(tmp_path)})
    assert capsys.readouterr().out == ""


def test_renamed_classes_keep_the_order_of_the_file(tmp_path):
    content = {
        "images": [{**IMAGE, "id": 0}],
        "categories": [{"id": 9, "name": "CoW"}, {"id": 2, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "bbox": [1, 1, 5, 5]}],
    }
    path = write(tmp_path / "a.json", content)
    data = build("RenamedCocoDataset", path, metainfo={"classes": ("flat mushroom", "bolete")})
    assert data.get_data_info(0)["instances"][0]["bbox_label"] == 1
    assert data.metainfo["category_names"] == tuple(c["name"] for c in content["categories"])
    with pytest.raises(DataError, match="renames 1"):
        build("RenamedCocoDataset", path, metainfo={"classes": ("mushroom",)})


def test_every_sample_carries_the_name_of_its_set(tmp_path):
    content = {"images": [{**IMAGE, "id": 0}], "annotations": []}
    sets = {}
    for name in ("cats", "dogs"):
        path = write(tmp_path / f"{name}.json", content | {"categories": [{"id": 1, "name": name}]})
        sets[name] = {
            "type": "CocoDataset",
            "ann_file": path,
            "pipeline": [Pack()],
            "test_mode": True,
            "return_classes": True,
        }
    data = DATASETS.build({"type": "BenchmarkSets", "sets": sets})
    assert len(data) == 2
    assert [data[i]["data_samples"].benchmark_set for i in range(2)] == ["cats", "dogs"]
    assert data[1]["data_samples"].text == ("dogs",)
    assert data.metainfo["sets"]["dogs"]["classes"] == ("dogs",)
    assert data.metainfo["sets"]["cats"]["size"] == 1


def test_omnilabel_can_be_asked_for_its_descriptions_alone(tmp_path):
    description = {"id": 1, "image_ids": [1], "text": "a cat that sleeps"}
    name = {"id": 2, "image_ids": [1, 2], "text": "cat"}
    path = write(
        tmp_path / "gt.json",
        {
            "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
            "descriptions": [
                description | {"anno_info": {"type": "object_description"}},
                name | {"anno_info": {"type": "object_category"}},
            ],
        },
    )
    asked = {"ann_file": str(path), "pipeline": [], "test_mode": True, "type": "OmniLabelDataset"}
    alone = DATASETS.build({**asked, "categories": False})
    assert (len(alone), len(DATASETS.build(asked))) == (1, 2)
    assert alone.get_data_info(0)["text"] == ("a cat that sleeps",)
