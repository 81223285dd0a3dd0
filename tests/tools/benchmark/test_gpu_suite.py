"""The suite of what needs a GPU, on the CPU."""

from __future__ import annotations

import json
import sys

import pytest

from llmdet.errors import ConfigError
from llmdet.testing.programs import load_program

MACHINE = {"device": "a test", "torch": "2"}


@pytest.fixture
def suite(root):
    return load_program(root / "tools/benchmark/gpu_suite.py")


@pytest.fixture
def python(suite, monkeypatch):
    """Makes the suite one of parts that run Python code each."""
    monkeypatch.setattr(suite, "look", lambda device: MACHINE)

    def parts(**code):
        made = [
            suite.Part(name, 20, (("{python}", "-c", text),), suite.matches(r"found \S+"))
            for name, text in code.items()
        ]
        monkeypatch.setattr(suite, "all_parts", lambda device, tiny: made)

    return parts


def test_the_cheapest_part_runs_on_the_cpu_and_a_second_call_does_not_repeat_it(
    suite, tmp_path, monkeypatch
):
    words = ["--out", str(tmp_path), "--device", "cpu", "--short", "--parts", "environment"]
    assert suite.main(words) == 0
    result = json.loads((tmp_path / "environment.json").read_text())
    assert result["state"] == "done"
    assert "onedl-mmdetection" in result["output"]
    assert result["machine"]["torch"] in (tmp_path / "results.md").read_text()
    monkeypatch.setattr(suite, "run", lambda *_: pytest.fail("something was run again"))
    assert suite.main(words) == 0


def test_only_what_failed_is_run_again(suite, python, tmp_path, capsys):
    once = f"import pathlib as p; f = p.Path({str(tmp_path / 'seen')!r}); n = f.exists(); f.touch()"
    python(good="print('found 1.5')", bad=f"{once}; print('found', n); raise SystemExit(not n)")
    assert suite.main(["--out", str(tmp_path)]) == 1
    first = capsys.readouterr().out
    assert "| good | done |" in first
    assert "| bad | failed with code 1 |" in first
    assert "found False" in (tmp_path / "bad.log").read_text()

    assert suite.main(["--out", str(tmp_path)]) == 0
    second = capsys.readouterr().out
    assert "== bad" in second
    assert "== good" not in second
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["machine"] == MACHINE
    assert written["parts"]["good"]["figures"] == "found 1.5"
    assert written["parts"]["bad"]["figures"] == "found True"


def test_an_interrupted_call_leaves_a_table_of_what_is_done(suite, python, tmp_path, monkeypatch):
    python(first="print('found 1')", second="print('found 2')")
    run = suite.run

    def interrupted(part, *rest):
        if part.name == "second":
            raise KeyboardInterrupt
        return run(part, *rest)

    monkeypatch.setattr(suite, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite.main(["--out", str(tmp_path)])
    table = (tmp_path / "results.md").read_text()
    assert "| first | done |" in table
    assert "| second | not run |" in table


def test_another_machine_is_measured_anew(suite, python, tmp_path, monkeypatch, capsys):
    python(good="print('found 1')")
    suite.main(["--out", str(tmp_path)])
    monkeypatch.setattr(suite, "look", lambda device: {**MACHINE, "device": "another"})
    capsys.readouterr()
    suite.main(["--out", str(tmp_path)])
    assert "== good" in capsys.readouterr().out


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(suite, tmp_path):
    child = "import time, sys; time.sleep(2); open(sys.argv[1], 'w')"
    parent = "import subprocess as s, sys, time; s.Popen([sys.executable, '-c', {!r}, {!r}]); "
    code = parent.format(child, str(tmp_path / "outlived")) + "time.sleep(60)"
    part = suite.Part("slow", 1, (("{python}", "-c", code),), suite.no_figures)
    assert suite.run(part, tmp_path, MACHINE)["state"] == "stopped at its limit"
    assert suite.finished(part, tmp_path, MACHINE) is None
    assert suite.call([sys.executable, "-c", "import time; time.sleep(3)"], None, 9) == "done"
    assert not (tmp_path / "outlived").exists()


def test_no_part_starts_that_could_end_after_the_minutes_of_a_call(suite, python, tmp_path, capsys):
    python(long="print('found 1')")
    assert suite.main(["--out", str(tmp_path), "--minutes", "0.1"]) == 1
    assert "| long | not run |" in capsys.readouterr().out


def test_a_program_that_is_not_there_is_reported_as_missing(suite, tmp_path):
    part = suite.Part("none", 9, (("{python}", "tools/nothing.py"),), suite.no_figures)
    assert suite.run(part, tmp_path, MACHINE)["state"] == "missing: tools/nothing.py"


def test_every_part_has_at_most_nine_minutes(suite):
    parts = [*suite.all_parts("cuda", False), *suite.all_parts("cpu", True)]
    assert all(part.seconds <= 540 for part in parts)


def test_a_misspelt_part_is_refused_with_its_nearest_match(suite, tmp_path):
    with pytest.raises(ConfigError, match="no part 'lmloss'; did you mean 'lm_loss'"):
        suite.main(["--out", str(tmp_path), "--parts", "lmloss"])


def test_a_device_that_is_not_there_is_refused_in_one_sentence(suite, tmp_path):
    with pytest.raises(ConfigError, match="--device cuda:99 cannot be used"):
        suite.main(["--out", str(tmp_path), "--device", "cuda:99"])


def test_rows_of_printed_tables_are_found_by_their_labels(suite):
    printed = "  ours, triton     1.500  2.0x\n  transformers  3.0\n  ours, triton: no CUDA\n"
    assert suite.rows(r"ours, triton|mmcv")(printed, None) == "ours, triton 1.500 2.0x"


def test_figures_are_read_off_what_the_programs_print(suite, root):
    readers = {part.name: part.figures for part in suite.all_parts("cpu", True)}
    inference = load_program(root / "tools/benchmark/inference.py")
    parts = dict.fromkeys((*inference.OURS, "rest"), 0.5)
    ways = {name: {**parts, "all": s} for name, s in (("transformers", 4.0), ("float32", 2.0))}
    assert readers["inference"](inference.table(ways), None) == (
        "| seconds | transformers | float32 |; | all | 4.00 | 2.00 |; "
        "| of transformers' | 1.00 | 0.50 |"
    )
    printed = (
        "Swin-T, 800 x 1333, 80 classes, 1 images, cpu,\n1 threads, torch 2.11.0, float32\n"
        "  original     9.61 s an image   1.00 x\n      ours     3.95 s an image   2.43 x\n"
        "scores differ by 6.0e-06 at most\n"
    )
    assert readers["lvis_inference"](printed, None) == (
        "original 9.61 s an image 1.00 x; ours 3.95 s an image 2.43 x; "
        "scores differ by 6.0e-06 at most"
    )
    printed = "  ours, grid_sample  1.653  1.00x\n  transformers  27.5  0.06x\n"
    assert (
        readers["msda"](printed, None) == "ours, grid_sample 1.653 1.00x; transformers 27.5 0.06x"
    )
    printed = "Iter(train) [2/4]  1.497 s/step (6% for data)  memory: 812 MB  loss: 38.4 (cls 1)"
    assert readers["fsdp2"](printed, None) == "1.497 s/step, memory: 812, loss: 38.4"
    scaling = load_program(root / "tools/benchmark/scaling.py")
    table = scaling.table("regions", {"seconds": {"phrases of 12 tokens": [(1, 2.0), (4, 3.5)]}})
    assert readers["scaling"](table, None) == "| phrases of 12 tokens | 2.00 | 3.50 | 0.500 |"


def test_precision_is_read_from_both_splits(suite, tmp_path):
    (tmp_path / "quickstart").mkdir()
    for split in ("seen", "unseen"):
        values = {"AP50": 0.9, "AP": 0.7, "novel_ap50": 0.8, "novel_ap": 0.65}
        path = tmp_path / "quickstart" / f"val_{split}_coco.json"
        path.write_text(json.dumps({"values": values}))
    expected = "seen AP50 90.0, AP 70.0; unseen AP50 80.0, AP 65.0"
    assert suite.average_precision("", tmp_path) == expected
