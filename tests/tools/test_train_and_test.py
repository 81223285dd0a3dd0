"""tools/train.py, tools/test.py and the dist scripts, started as users start them."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.programs import load_program
from llmdet.utils.cli import run_cli


def run(root: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Start a program as from a shell in which this very environment is active."""
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    return subprocess.run(
        [str(part) for part in command],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        timeout=280,
    )


def succeed(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def program(root: Path, name: str) -> ModuleType:
    """A program of tools/, to be called in this process: starting one anew takes ten seconds."""
    return load_program(root / "tools" / f"{name}.py")


def call(root: Path, name: str, work_dir: Path, *arguments: str | Path) -> str:
    """Run a program of tools/ in this process; returns its log."""
    texts = [str(argument) for argument in arguments]
    program(root, name).main([*texts, "--work-dir", str(work_dir)])
    return newest_log(work_dir)


def newest_log(work_dir: Path) -> str:
    return max(work_dir.glob("*/*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()


def losses(log: str) -> list[float]:
    return [float(value) for value in re.findall(r"  loss: ([\d.]+)", log)]


def metrics(work_dir: Path) -> dict[str, float]:
    """What the newest test in the folder measured."""
    newest = max(work_dir.glob("*/*.json"), key=lambda path: path.stat().st_mtime_ns)
    values = json.loads(newest.read_text())
    return {key: value for key, value in values.items() if "time" not in key}


@pytest.fixture(scope="module")
def trained(root, tiny_project) -> Path:
    """The work dir of a training of four iterations."""
    work_dir = tiny_project.folder / "trained"
    succeed(run(root, "bash", "dist_train.sh", tiny_project.config, "1", "--work-dir", work_dir))
    return work_dir


@pytest.mark.parametrize("tool", ["train", "test"])
def test_help_names_the_way_to_change_a_config(root, tool):
    text = succeed(run(root, sys.executable, f"tools/{tool}.py", "--help"))
    assert "--cfg-options" in text


def test_training_writes_a_checkpoint_and_finite_losses(trained):
    assert (trained / "iter_4.pth").is_file()
    values = losses(newest_log(trained))
    assert len(values) == 4
    assert all(0 < value < 1000 for value in values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
@pytest.mark.parametrize("launcher", ["pytorch", "slurm"])
def test_training_ends_with_the_threads_of_its_process_group(
    root, tiny_project, tmp_path, monkeypatch, launcher
):
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    slurm = {"PROCID": "0", "LOCALID": "0", "NTASKS": "1", "NODELIST": "localhost"}
    for name in group:  # what Slurm says replaces these
        monkeypatch.setenv(name, group[name] if launcher == "pytorch" else "")
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    arguments = ("--launcher", launcher, "--cfg-options", "train_cfg.max_iters=1")
    log = call(root, "train", tmp_path, tiny_project.config, *arguments)
    assert "gloo" in log
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if name.startswith("pt_gloo")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_run_says_little_before_its_first_iteration(root, tiny_project, tmp_path):
    command = (sys.executable, "tools/train.py", tiny_project.config, "--work-dir", tmp_path)
    rules = "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1"
    result = run(root, *command, "--cfg-options", "train_cfg.max_iters=1", rules)
    shown = succeed(result)
    before, found, _ = shown.partition("Iter(train)")
    assert found
    lines = [*before.splitlines(), *result.stderr.splitlines()]
    assert len(lines) <= 25, "\n".join(lines)
    assert "OneDL" not in before
    logged, found, _ = newest_log(tmp_path).partition("Iter(train)")
    assert found
    assert len(logged.splitlines()) <= 25
    assert (tmp_path / tiny_project.config.name).is_file()  # the complete config
    assert next(tmp_path.glob("*/environment.txt")).stat().st_size


def test_resume_continues_at_the_newest_checkpoint(root, tiny_project, tmp_path):
    command = (root, "train", tmp_path, tiny_project.config)
    call(*command, "--cfg-options", "train_cfg.max_iters=2")
    time.sleep(1.1)  # mmengine names the folders of runs by the second
    log = call(*command, "--resume", "--cfg-options", "train_cfg.max_iters=3")
    assert "resumed epoch: 0, iter: 2" in log
    assert len(losses(log)) == 1


@pytest.mark.parametrize("change", ["num_queries=60", "encoder.num_layers=1"])
def test_resuming_into_a_changed_model_is_one_sentence(
    root, tiny_project, tmp_path, trained, change
):
    changed = ("--resume", trained / "iter_4.pth", "--cfg-options", f"model.{change}")
    with pytest.raises(CheckpointError, match=r"iter_4\.pth"):
        call(root, "train", tmp_path, tiny_project.config, *changed)


def test_resuming_without_the_language_model_is_one_sentence_and_exit_code_2(
    root, tiny_project, tmp_path, capsys
):
    from llmdet.datasets.toy.models import tiny_qwen

    lmm = dict(
        type="LanguageModel",
        model=tiny_qwen(tmp_path / "qwen"),
        dtype="float32",
        lora=dict(r=2, alpha=4),
    )
    settings = dict(type="LLMDet", lmm=lmm, region_captioner=dict(max_length=64))
    config = tmp_path / "talks.py"
    config.write_text(f"_base_ = {str(tiny_project.config)!r}\nmodel = {settings!r}\n")
    call(root, "train", tmp_path / "run", config, "--cfg-options", "train_cfg.max_iters=1")
    command = [str(config), "--work-dir", str(tmp_path / "run"), "--resume", "--cfg-options"]
    main = program(root, "train").main
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: main([*command, "model.lmm=None"]))
    assert ended.value.code == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"iter_1\.pth.*does not fit this config", sentence)


def test_resume_in_a_new_folder_starts_and_says_so(root, tiny_project, tmp_path, capsys):
    options = ("--cfg-options", "train_cfg.max_iters=1")
    log = call(root, "train", tmp_path, tiny_project.config, "--resume", "--amp", *options)
    assert "has no checkpoint yet" in capsys.readouterr().err
    assert len(losses(log)) == 1


def test_training_is_compiled_where_the_command_line_says_so(
    root, tiny_project, tmp_path, monkeypatch
):
    backends = []

    def compile_nothing(function, backend, **_):
        backends.append(backend)
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    options = ("--cfg-options", "compile.backend=aot_eager", "train_cfg.max_iters=1")
    log = call(root, "train", tmp_path, tiny_project.config, "--compile", *options)
    assert "torch.compile: backbone, encoder and decoder" in log
    assert set(backends) == {"aot_eager"}
    assert 0 < losses(log)[0] < 1000


def test_the_learning_rate_is_scaled_to_the_batch(root, tiny_project, tmp_path):
    # The schedule's rate is for 8 images, the config has batches of 2.
    options = ("--auto-scale-lr", "--cfg-options", "train_cfg.max_iters=1")
    log = call(root, "train", tmp_path, tiny_project.config, *options)
    assert "Scaling the original LR by 0.25" in log


KILL_ONCE = """
import os, signal
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillOnce(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            torch.distributed.barrier()  # iteration 3 is logged
            if runner.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_two_processes_train_and_an_elastic_restart_continues_exactly(
    root, tiny_project, tmp_path, monkeypatch
):
    (tmp_path / "kill_once.py").write_text(KILL_ONCE)
    (tmp_path / "killed.py").write_text(
        f"_base_ = '{tiny_project.config}'\ncustom_imports = dict(imports=['kill_once'])\n"
        "custom_hooks = [dict(type='KillOnce')]\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("MAX_RESTARTS", "1")
    arguments = ("2", "--resume", "--work-dir", tmp_path / "run")
    output = succeed(run(root, "bash", "dist_train.sh", tmp_path / "killed.py", *arguments))
    assert "gloo" in output
    values = []
    for path in sorted((tmp_path / "run").glob("*/vis_data/scalars.json")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        speed = ("time", "data_time", "images_per_second")
        values.append(
            {line["step"]: {k: v for k, v in line.items() if k not in speed} for line in lines}
        )
    assert [list(steps) for steps in values] == [[1, 2, 3], [3, 4]]
    assert values[0][3] == values[1][3]


def test_a_restart_that_would_begin_anew_is_refused(root, tiny_project, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(ConfigError, match="give --resume too"):
        call(root, "train", tmp_path, tiny_project.config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_two_processes_reach_the_numbers_of_one(root, tiny_project, tmp_path, trained):
    tested = (tiny_project.config, trained / "iter_4.pth")
    alone, both = tmp_path / "1", tmp_path / "2"
    call(root, "test", alone, *tested, "--out", alone / "out.jsonl")
    command = ("bash", "dist_test.sh", *tested, "2", "--work-dir", both)
    succeed(run(root, *command, "--out", both / "out.jsonl"))
    for work_dir in (alone, both):
        assert len((work_dir / "out.jsonl").read_text().splitlines()) == 1 + 6
    assert metrics(alone) == metrics(both) != {}


def test_an_interrupted_test_continues_and_reaches_the_same_numbers(
    root, tiny_project, tmp_path, trained
):
    out = tmp_path / "predictions.jsonl"
    arguments = (tiny_project.config, trained / "iter_4.pth", "--out", out)
    call(root, "test", tmp_path / "a", *arguments)
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + 6
    out.write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])
    log = call(root, "test", tmp_path / "b", *arguments)
    assert "3 images were predicted before" in log
    assert sorted(out.read_text().splitlines()) == sorted(lines)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != {}


def test_predictions_of_other_weights_are_not_continued(root, tiny_project, tmp_path, trained):
    out = tmp_path / "predictions.jsonl"
    call(root, "test", tmp_path, tiny_project.config, trained / "iter_2.pth", "--out", out)
    with pytest.raises(ConfigError, match="weights_hash"):
        call(root, "test", tmp_path, tiny_project.config, trained / "iter_4.pth", "--out", out)


def test_pictures_are_saved_where_show_dir_says(root, tiny_project, tmp_path, trained):
    pictures = tmp_path / "pictures"
    weights = trained / "iter_4.pth"
    call(root, "test", tmp_path, tiny_project.config, weights, "--show-dir", pictures)
    assert len(list(pictures.iterdir())) == 6


def test_a_test_needs_no_file_of_the_training(root, tiny_project, tmp_path, trained):
    options = ["train_dataloader.dataset.ann_file=nowhere.jsonl"]
    weights = trained / "iter_4.pth"
    call(root, "test", tmp_path, tiny_project.config, weights, "--cfg-options", *options)
    assert metrics(tmp_path)


def test_test_time_augmentation_runs(root, tiny_project, tmp_path, trained):
    call(root, "test", tmp_path, tiny_project.config, trained / "iter_4.pth", "--tta")
    assert metrics(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no_such.py", "weights.pth"), "There is no config file 'no_such.py'"),
        (("{config}", "no_such.pth"), "no_such.pth' does not exist"),
        (("{config}", "{weights}", "--out", "x.pkl"), "ends in .jsonl"),
        (
            ("{config}", "{weights}", "--cfg-options", "test_evaluator.type=CocoMetrik"),
            "did you mean 'CocoMetric'",
        ),
    ],
)
def test_mistakes_are_answered_by_one_sentence(
    root, tiny_project, tmp_path, trained, capsys, arguments, sentence
):
    places = {"config": tiny_project.config, "weights": trained / "iter_4.pth"}
    filled = [argument.format(**places) for argument in arguments]
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: call(root, "test", tmp_path, *filled))
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def unfitting(tiny_project, trained) -> dict[str, Path]:
    """Weights of a backbone of half the width, and weights of which no name fits."""
    state_dict = read_checkpoint(trained / "iter_4.pth").state_dict
    files = {name: tiny_project.folder / f"{name}.pth" for name in ("narrow", "foreign")}
    narrow = {
        key: value[: len(value) // 2] if key.startswith("backbone.") and value.ndim else value
        for key, value in state_dict.items()
    }
    write_checkpoint(files["narrow"], narrow)
    foreign = {f"bbox_head.other.{key}": value for key, value in state_dict.items()}
    write_checkpoint(files["foreign"], foreign)
    return files


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [("narrow", "tensors of another shape backbone"), ("foreign", "no tensor has a place")],
)
@pytest.mark.parametrize("tool", ["train", "test"])
def test_weights_that_do_not_fit_are_neither_trained_nor_tested(
    root, tiny_project, tmp_path, unfitting, tool, weights, sentence
):
    given = unfitting[weights]
    arguments = {"train": ("--cfg-options", f"load_from={given}"), "test": (given,)}
    with pytest.raises(CheckpointError, match=sentence):
        call(root, tool, tmp_path, tiny_project.config, *arguments[tool])


def test_what_may_be_new_in_training_must_be_there_in_a_test(root, tiny_project, tmp_path, trained):
    state_dict = read_checkpoint(trained / "iter_4.pth").state_dict
    cut = {key: value for key, value in state_dict.items() if not key.startswith("bbox_head.reg")}
    write_checkpoint(tmp_path / "cut.pth", cut)
    config = tmp_path / "new_head.py"
    config.write_text(
        f"_base_ = '{tiny_project.config}'\nload_missing = ['bbox_head']\n"
        f"load_from = '{tmp_path / 'cut.pth'}'\ntrain_cfg = dict(max_iters=1)\n"
    )
    log = call(root, "train", tmp_path / "a", config)
    assert "kept as built: new, as load_missing says" in log
    with pytest.raises(CheckpointError, match=r"too few: the model wants bbox_head\.reg"):
        call(root, "test", tmp_path / "b", config, tmp_path / "cut.pth")
    new = ("--cfg-options", "load_missing=[bbox_head]")
    call(root, "test", tmp_path / "c", config, tmp_path / "cut.pth", *new)


@pytest.mark.parametrize("arguments", [(), ("config.py",), ("config.py", "two"), ("c.py", "0")])
def test_the_dist_scripts_explain_themselves_when_processes_are_missing(root, arguments):
    result = run(root, "bash", "dist_train.sh", *arguments)
    assert result.returncode == 2
    assert "bash dist_train.sh CONFIG PROCESSES" in result.stderr


def test_a_mistake_of_two_processes_ends_with_one_sentence_and_status_2(root, tmp_path):
    (tmp_path / "no_model.py").write_text("max_iters = 1")
    result = run(root, "bash", "dist_train.sh", tmp_path / "no_model.py", "2")
    assert result.returncode == 2
    assert "describes no model" in result.stderr
    assert "Traceback" not in result.stderr
