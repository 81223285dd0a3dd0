"""gradio_demo.py as users start it; the page itself is tested in tests/apis/web."""

from contextlib import contextmanager

import pytest

from llmdet.testing.programs import load_program

FLAGS = "--score-thr --device --no-captions --server-port --server-name --share --cfg-options"


@pytest.fixture(scope="module")
def program(root):
    return load_program(root / "demo" / "gradio_demo.py")


class Page:
    """A page that nobody waits for."""

    def block_thread(self):
        pass


@pytest.fixture
def served(monkeypatch):
    """What the program would serve: detector, place, threshold and examples."""
    calls = []

    @contextmanager
    def running_demo(*arguments):
        calls.append(arguments)
        yield Page()

    monkeypatch.setattr("llmdet.apis.web.serving.running_demo", running_demo)
    return calls


def test_help_names_every_flag(program, capsys):
    with pytest.raises(SystemExit) as end:
        program.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in FLAGS.split())


def test_it_serves_the_loopback_unless_told_otherwise(program, served, tiny):
    program.main([str(tiny.config), str(tiny.weights), "--device", "cpu", "--score-thr", "0.4"])
    ((detector, serving, threshold, examples),) = served
    assert (serving.host, serving.port, serving.share) == ("127.0.0.1", None, False)
    assert threshold == 0.4
    assert not detector.gives_captions
    assert examples


def test_it_serves_where_it_is_told(program, served, tiny):
    place = ["--server-name", "0.0.0.0", "--server-port", "8000", "--share"]
    program.main([str(tiny.config), str(tiny.weights), "--device", "cpu", *place])
    serving = served[0][1]
    assert (serving.host, serving.port, serving.share) == ("0.0.0.0", 8000, True)
