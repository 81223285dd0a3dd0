"""Reading configs: scopes, options, and one sentence for each mistake."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from llmdet.errors import ConfigError
from llmdet.utils.config import (
    RunConfig,
    find_config,
    load_config,
    load_model_config,
    merge_options,
    set_work_dir,
)


def write(path, text):
    path.write_text(text)
    return path


def test_bases_of_mmdet_lose_their_scope_so_that_our_parts_are_found_first(tmp_path):
    path = write(
        tmp_path / "c.py",
        "_base_ = 'mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py'\n"
        "default_scope = 'llmdet'\n",
    )
    config = load_config(path)
    assert config.model.type == "GroundingDINO"
    assert "_scope_" not in config.pretty_text


def test_configs_of_another_scope_keep_it(tmp_path):
    path = write(tmp_path / "c.py", "default_scope = 'mmdet'\nx = dict(_scope_='mmdet')\n")
    assert load_config(path).x._scope_ == "mmdet"


def test_options_are_merged_last(tmp_path):
    path = write(tmp_path / "c.py", "a = dict(b=1, c=[dict(d=2)])\n")
    config = load_config(path, {"a.b": 5, "a.c.0.d": 6, "new.key": "x"})
    assert (config.a.b, config.a.c[0].d, config.new.key) == (5, 6, "x")


def test_a_new_data_root_reaches_every_setting_that_was_built_from_it(tmp_path):
    path = write(
        tmp_path / "c.py",
        "data_root = 'data/x/'\n"
        "bert = 'bert-base'\n"
        "loader = dict(dataset=dict(data_root=data_root, pipeline=[dict(name=bert)]))\n"
        "evaluator = (dict(ann_file=data_root + 'val.json'), dict(ann_file='data/xy/val.json'))\n",
    )
    config = load_config(path, {"data_root": "/elsewhere", "bert": "tiny"})
    assert config.loader.dataset.data_root == "/elsewhere/"
    assert config.loader.dataset.pipeline[0].name == "tiny"
    assert [part.ann_file for part in config.evaluator] == [
        "/elsewhere/val.json",
        "data/xy/val.json",
    ]


def test_a_missing_config_is_answered_with_its_neighbour(tmp_path):
    write(tmp_path / "grounding_dino_swin_t.py", "")
    with pytest.raises(ConfigError, match=r"did you mean '.*grounding_dino_swin_t\.py'"):
        load_config(tmp_path / "grounding_dino_swint.py")


@pytest.mark.parametrize(
    "text",
    ["a = (", "_base_ = './gone.py'", "a = undefined", "raise RuntimeError('no')"],
)
def test_a_faulty_config_is_named_with_its_fault(tmp_path, text):
    path = write(tmp_path / "bad.py", text)
    with pytest.raises(ConfigError, match=r"bad\.py' cannot be read: \w+"):
        load_config(path)


def test_an_option_that_leads_nowhere_is_named():
    config = Config({"a": [1, 2]})
    with pytest.raises(ConfigError, match=r"--cfg-options a\.7=3"):
        merge_options(config, {"a.7": 3})


def test_the_work_dir_of_the_command_line_wins_then_the_configs_then_the_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given, own, none = Config({"work_dir": "w"}), Config({"work_dir": "w"}), Config({})
    set_work_dir(given, "configs/x.py", "v")
    set_work_dir(own, "configs/x.py")
    set_work_dir(none, "configs/x.py")
    assert (given.work_dir, own.work_dir, none.work_dir) == ("v", "w", "work_dirs/x")


def test_a_work_dir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"work dir '.*file/run' cannot be made \(Not a dir"):
        set_work_dir(Config({}), "configs/x.py", str(tmp_path / "file/run"))


def test_a_config_without_a_model_is_refused_where_one_is_needed(tmp_path):
    path = tmp_path / "data.py"
    path.write_text("data_root = 'data/'")
    assert load_config(path).data_root == "data/"
    with pytest.raises(ConfigError, match=r"data\.py' describes no model"):
        load_model_config(path)


@pytest.mark.parametrize(
    "name", ["configs/finetune/raccoon.py", "finetune/raccoon.py", "finetune/raccoon"]
)
def test_a_config_that_is_not_here_is_the_packages_and_that_is_said(
    root, tmp_path, monkeypatch, caplog, name
):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == root / "configs/finetune/raccoon.py"
    assert f"'{name}' is not in this folder; taking {root}" in caplog.text


def test_a_config_that_is_here_is_taken_without_a_word(root, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raccoon.py").write_text("a = 1")
    assert find_config("raccoon.py") == Path("raccoon.py")
    assert not caplog.text


@pytest.mark.parametrize("name", ["/configs/finetune/raccoon.py", "../finetune/raccoon.py"])
def test_a_path_that_leads_elsewhere_is_taken_at_its_word(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="There is no config file"):
        find_config(name)


def test_a_misspelt_name_among_the_packages_is_met_by_its_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean 'raccoon\.py'"):
        find_config("configs/finetune/racoon.py")


def test_the_text_of_a_config_follows_its_changes():
    config = RunConfig.of(Config({"a": 1}))
    config.a = 2
    copied = copy.deepcopy(config)
    copied.b = dict(c="d")
    assert config.pretty_text == "a = 2\n"
    assert copied.pretty_text == "a = 2\nb = dict(c='d')\n"
