"""Places among several processes, and what a failure of one of them leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmdet.errors import ConfigError, DataError
from llmdet.utils.launchers import end_with_parent, first_host, join_launcher, recorded_failure

SLURM = {
    "SLURM_PROCID": "9",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "gpu[07-09,12]",
    "SLURM_JOB_ID": "123456",
}


def test_without_a_launcher_nothing_is_read_or_written():
    environment = {}
    assert join_launcher("none", environment) == "none"
    assert environment == {}


def test_slurm_says_rank_device_and_where_processes_meet():
    environment = dict(SLURM)
    assert join_launcher("slurm", environment) == "pytorch"
    assert environment.items() >= {
        ("RANK", "9"),
        ("WORLD_SIZE", "16"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "gpu07"),
        ("MASTER_PORT", str(15000 + 123456 % 15000)),
    }


def test_slurm_with_an_address_a_step_of_its_own_and_one_device_for_each_task():
    environment = {**SLURM, "SLURM_STEP_NODELIST": "gpu12", "CUDA_VISIBLE_DEVICES": "3"}
    join_launcher("slurm", environment)
    assert (environment["MASTER_ADDR"], environment["LOCAL_RANK"]) == ("gpu12", "0")
    environment = {**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}
    environment["CUDA_VISIBLE_DEVICES"] = "0,1"
    join_launcher("slurm", environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("10.0.0.1", "4000")
    assert environment["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("a[3,5]b[1-2]", "a3b1"),
        ("rack-1-[2-3]", "rack-1-2"),
    ],
)
def test_the_first_machine_of_slurms_list(nodes, first):
    assert first_host(nodes) == first


def test_mpi_on_one_machine_needs_no_address_and_on_several_does():
    environment = {
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }
    several = {**environment, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    assert join_launcher("mpi", environment) == "pytorch"
    assert environment["MASTER_ADDR"] == "127.0.0.1"
    assert (environment["RANK"], environment["WORLD_SIZE"]) == ("1", "2")
    with pytest.raises(ConfigError, match="MASTER_ADDR is not set"):
        join_launcher("mpi", several)


@pytest.mark.parametrize(
    ("launcher", "variable"),
    [("slurm", "SLURM_PROCID"), ("pytorch", "RANK"), ("mpi", "OMPI_COMM_WORLD_RANK")],
)
def test_a_launcher_that_did_not_start_the_process_is_named(launcher, variable):
    with pytest.raises(ConfigError, match=f"--launcher {launcher}: .*{variable}"):
        join_launcher(launcher, {})


def test_a_failure_is_recorded_with_its_time_for_torchrun(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    before = time.time()
    with pytest.raises(DataError), recorded_failure():
        raise DataError("row 7 of a.jsonl has no boxes")
    record = json.loads((tmp_path / "error.json").read_text())
    assert record["message"]["message"] == "row 7 of a.jsonl has no boxes"
    assert record["expected"] is True
    assert record["lost_another"] is False
    assert before <= record["seconds"] <= time.time()
    with pytest.raises(RuntimeError), recorded_failure():
        raise RuntimeError("[transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:21")
    record = json.loads((tmp_path / "error.json").read_text())
    assert record["lost_another"] is True


def test_a_failure_is_in_its_file_whole_or_not_at_all(tmp_path, monkeypatch):
    place = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(place))
    write = Path.write_text

    def watched(path, text):
        write(path, text[:10])
        assert not place.exists()  # torchrun would read half of it
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", watched)
    with pytest.raises(DataError), recorded_failure():
        raise DataError("row 7 of a.jsonl has no boxes")
    assert json.loads(place.read_text())["kind"] == "DataError"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's prctl is Linux's")
def test_a_process_ends_with_the_one_that_started_it():
    reader, writer = os.pipe()  # nobody writes: it ends when the last process that holds it has
    parent = os.fork()
    if not parent:
        os.close(reader)
        middle = os.getpid()
        if not os.fork():
            end_with_parent(middle)
            os.write(writer, b"x")
            time.sleep(60)
        os.read(os.pipe()[0], 1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    start = time.monotonic()
    assert os.read(reader, 1) == b""
    assert time.monotonic() - start < 30


#: A rank that imports nothing heavy: `rank()` does what a test of launch.py is about.
RANK = """
import os, signal, sys, time
from pathlib import Path
from llmdet.errors import DataError
from llmdet.utils.cli import run_cli
from llmdet.utils.launchers import join_launcher, recorded_failure

def main():
    join_launcher("pytorch")
    number = int(os.environ["RANK"])
    with recorded_failure():
        rank(number)

def rank(number):
    {body}

run_cli(main)
"""


def launch(root, tmp_path, body, *options, **popen):
    """Start two ranks by tools/launch.py."""
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(body=body))
    if not any("master_port" in option for option in options):
        options = (*options, "--standalone", "--local_addr=127.0.0.1")
    command = [sys.executable, root / "tools/launch.py", *options, "--nproc_per_node=2", script]
    variables = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        list(map(str, command)), env=variables, stderr=subprocess.PIPE, text=True, **popen
    )


def test_the_rank_that_failed_first_has_the_last_word(root, tmp_path):
    body = """
    import atexit
    failed = Path(__file__).with_name("failed")
    if number == 1:
        atexit.register(failed.touch)  # its failure is recorded by then
        raise DataError("row 7 of a.jsonl has no boxes")
    while not failed.exists():
        time.sleep(0.01)
    raise RuntimeError("Connection closed by peer")
    """
    process = launch(root, tmp_path, body)
    shown = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert shown.splitlines()[-1] == "rank 1 ended the run: row 7 of a.jsonl has no boxes"


def test_a_killed_rank_ends_all_and_is_named_last(root, tmp_path):
    body = """
    if number == 1:
        while not Path(__file__).with_name("ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("other words"))
    Path(__file__).with_name("ready").touch()
    time.sleep(300)
    """
    process = launch(root, tmp_path, body)
    wait_until((tmp_path / "ready").exists)
    start = time.monotonic()
    shown = process.communicate(timeout=120)[1]
    assert time.monotonic() - start < 60
    assert process.returncode == 137
    assert "other words" in shown
    assert shown.splitlines()[-1].startswith("rank 1 ended the run: killed by SIGKILL")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's prctl is Linux's")
def test_ranks_do_not_outlive_a_killed_launcher(root, tmp_path):
    body = """
    Path(__file__).with_name(f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(300)
    """
    process = launch(root, tmp_path, body)
    files = [tmp_path / "0.pid", tmp_path / "1.pid"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    process.kill()
    process.communicate(timeout=120)  # a rank that is ending may close its files before it is gone
    wait_until(lambda: not any(alive(int(file.read_text())) for file in files))


def test_ctrl_c_reaches_the_ranks_and_ends_without_a_traceback(root, tmp_path):
    body = """
    signal.signal(signal.SIGINT, lambda *_: Path(__file__).with_name(f"{number}.saved").touch())
    Path(__file__).with_name(f"{number}.ready").touch()
    while not Path(__file__).with_name(f"{number}.saved").exists():
        time.sleep(0.05)
    raise KeyboardInterrupt
    """
    process = launch(root, tmp_path, body)
    wait_until(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert len(list(tmp_path.glob("*.saved"))) == 2


def test_a_port_that_is_in_use_is_one_sentence(root, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = launch(root, tmp_path, "pass", f"--master_port={port}")
        shown = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "choose another PORT" in shown.splitlines()[-1]
    assert "Traceback" not in shown


def wait_until(reached, seconds=120):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
