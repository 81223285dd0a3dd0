"""How command-line programs end, and how they parse config options."""

import argparse
import gc

import pytest

from llmdet.errors import ConfigError
from llmdet.utils.cli import add_config_options, add_launcher, fast_startup, run_cli


def fail() -> None:
    raise ConfigError("the lr is negative")


def test_a_users_mistake_ends_with_its_sentence_and_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        run_cli(fail)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: the lr is negative\n"


def test_several_processes_say_which_of_them_failed(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit):
        run_cli(fail)
    assert capsys.readouterr().err == "[rank 3] error: the lr is negative\n"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(lambda: 1 // 0)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_exit_code_is_what_main_returns(returned, code):
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: returned)
    assert end.value.code == code


def test_a_start_is_not_interrupted_by_garbage_collection():
    """Nor do later collections look at what it made."""
    try:
        with fast_startup():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    add_launcher(parser)
    return parser


def test_config_options_become_python_values():
    options = ["a.b=1", "c=[1,2.5,x]", "d=None", "e=True", "path=data/x=y"]
    args = parser().parse_args(["--cfg-options", *options])
    assert args.cfg_options == {
        "a.b": 1,
        "c": [1, 2.5, "x"],
        "d": None,
        "e": True,
        "path": "data/x=y",
    }


def test_no_config_options_are_an_empty_dictionary():
    assert parser().parse_args([]).cfg_options == {}


def test_an_option_without_equals_sign_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--cfg-options", "lr"])
    assert end.value.code == 2
    assert "key=value" in capsys.readouterr().err
