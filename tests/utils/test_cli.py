"""How command-line programs end, and how they parse config options."""

import argparse
import errno
import gc
import os
from pathlib import Path

import pytest

from llmdet.errors import ConfigError, DataError
from llmdet.utils.cli import (
    add_config_options,
    add_launcher,
    count,
    fast_startup,
    fraction,
    positive,
    run_cli,
)


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


def open_a_missing_file() -> None:
    Path("/nowhere/at/all").read_text()


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("main", "sentence"),
    [
        (open_a_missing_file, "error: '/nowhere/at/all': No such file or directory\n"),
        (fill_the_disk, "error: No space left on device\n"),
    ],
)
def test_what_the_system_refuses_is_named_in_one_sentence(main, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        run_cli(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == sentence


def test_another_failure_of_the_system_keeps_its_traceback():
    def main() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        run_cli(main)


def test_what_an_error_quotes_is_shortened_and_cannot_steer_the_terminal(capsys):
    def main() -> None:
        raise DataError(f"row 3: the picture {'a' * 90000}\x1b[2J\udcff ist schön")

    with pytest.raises(SystemExit):
        run_cli(main)
    said = capsys.readouterr().err
    assert said.startswith("error: row 3: the picture aaa")
    assert said.endswith("a\\x1b[2J\\udcff ist schön\n")
    assert len(said) < 1300


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_exit_code_is_what_main_returns(returned, code):
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: returned)
    assert end.value.code == code


def test_a_start_is_not_interrupted_by_garbage_collection():
    """Nor do later collections look at what it made."""
    try:
        with fast_startup():
            with fast_startup():
                assert not gc.isenabled()
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


def test_an_error_of_a_data_loaders_worker_is_one_sentence_too(capsys):
    from torch.utils.data import DataLoader

    class Broken:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise DataError("rows.jsonl:1: the picture a.jpg does not exist")

    with pytest.raises(SystemExit) as end:
        run_cli(lambda: list(DataLoader(Broken(), num_workers=1)))
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "error: rows.jsonl:1: the picture a.jpg does not exist"
    assert not any("Traceback" in line for line in said)


def test_a_reader_that_leaves_ends_the_program_without_a_traceback(monkeypatch):
    def write():
        raise BrokenPipeError

    monkeypatch.setattr("os.dup2", lambda *files: None)
    with pytest.raises(SystemExit) as end:
        run_cli(write)
    assert end.value.code == 141


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (fraction, ["nan", "-0.1", "1.5", "inf"], "0.3"),
        (positive, ["nan", "-1", "0", "inf"], "0.7"),
        (count, ["0", "-1"], "4"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, wrong, right):
    assert kind(right) == float(right)
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError, match=f"not {text}"):
            kind(text)
