"""A variable changed on the command line takes along what was built from it."""

import pytest

from llmdet.utils.config import load_config

CONFIG = """
data_root = "data/coco/"
bert = "bert-base-uncased"
lr = 1e-4
model = dict(name=bert, other="bert-base-uncased-finetuned")
loader = dict(
    dataset=dict(data_root=data_root, pipeline=[dict(tokenizer=bert)], parts=("data/coco/a", 1))
)
evaluator = dict(ann_file=data_root + "annotations/val.json", other="my/data/coco/")
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("value", ["/mnt/sets/coco/", "/mnt/sets/coco"])
def test_paths_below_a_folder_follow_it_with_or_without_slash(path, value):
    config = load_config(path, {"data_root": value})
    assert config.loader.dataset.data_root == "/mnt/sets/coco/"
    assert config.loader.dataset.parts == ("/mnt/sets/coco/a", 1)
    assert config.evaluator.ann_file == "/mnt/sets/coco/annotations/val.json"
    assert config.evaluator.other == "my/data/coco/"


def test_a_name_changes_only_where_it_stands_alone(path):
    config = load_config(path, {"bert": "folder/bert"})
    assert config.model.name == "folder/bert"
    assert config.loader.dataset.pipeline[0].tokenizer == "folder/bert"
    assert config.model.other == "bert-base-uncased-finetuned"


def test_numbers_and_dotted_options_change_their_own_place_alone(path):
    config = load_config(path, {"lr": 1.0, "model.name": "x"})
    assert config.lr == 1.0
    assert config.model.name == "x"
    assert config.bert == "bert-base-uncased"
    assert config.loader.dataset.pipeline[0].tokenizer == "bert-base-uncased"
