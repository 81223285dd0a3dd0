"""The table of commands: each is there, is explained at once, and runs what the script runs."""

import importlib
import sys

import pytest

from llmdet import __version__
from llmdet.cli import __main__ as program


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; returns exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["llmdet"])

    def call(*words):
        with pytest.raises(SystemExit) as end:
            program.main(words)
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return call


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_explains_itself_under_its_name(run, name):
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: llmdet {name} ")


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_is_a_module_with_main(name):
    module, summary = program.COMMANDS[name]
    assert callable(importlib.import_module(module).main)
    assert summary


@pytest.mark.parametrize(
    ("words", "code", "listed", "left_out"),
    [
        ((), 0, "train", "nothing"),
        (("--help",), 0, "convert data", "nothing"),
        (("convert",), 2, "convert data", "doctor"),
        (("convert", "--help"), 0, "convert checkpoint", "doctor"),
    ],
)
def test_what_can_be_typed_is_listed(run, words, code, listed, left_out):
    ended, out, _ = run(*words)
    assert ended == code
    assert f"  {listed} " in out
    assert f"  {left_out} " not in out


def test_an_unknown_command_names_its_nearest(run):
    code, _, errors = run("trian", "config.py")
    assert code == 2
    assert "no command 'trian'; did you mean 'train'?" in errors


def test_the_version_is_said(run):
    assert run("--version")[1] == f"llmdet {__version__}\n"


def test_a_command_gets_the_words_behind_it_and_ends_as_the_script_does(run):
    code, _, errors = run("evaluate", "--metric", "coco", "--gt", "no.json", "--pred", "p.npz")
    assert code == 2
    assert errors == "error: cannot read no.json: No such file or directory\n"
