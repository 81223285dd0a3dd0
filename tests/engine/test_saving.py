"""Checkpoints when a run is killed, a disk is full, a bit flips or a folder moves."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook

from llmdet.engine import build_runner, latest_checkpoint, read_training_state
from llmdet.engine.saving import CheckpointHook
from llmdet.errors import CheckpointError
from llmdet.testing.line import line_config
from llmdet.utils.cli import run_cli


def config(work_dir: Path, max_iters: int = 4, keep: int = -1, **changes):
    hook = dict(type="CheckpointHook", interval=2, by_epoch=False, max_keep_ckpts=keep)
    made = line_config(work_dir, max_iters, default_scope="llmdet", **changes)
    made.default_hooks = dict(checkpoint=hook)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_pointer_names_the_checkpoint_as_seen_from_a_folder_that_may_move(tmp_path):
    build_runner(config(tmp_path / "run")).train()
    assert (tmp_path / "run/last_checkpoint").read_text() == "iter_4.pth"
    (tmp_path / "run").rename(tmp_path / "moved")
    assert latest_checkpoint(tmp_path / "moved") == tmp_path / "moved/iter_4.pth"


def test_an_absolute_pointer_of_a_run_that_was_moved_is_followed(tmp_path):
    torch.save({}, tmp_path / "iter_4.pth")
    (tmp_path / "last_checkpoint").write_text("/elsewhere/run/iter_4.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_4.pth"


def test_checkpoints_follow_validations(tmp_path):
    made = config(tmp_path, max_iters=5)
    made.default_hooks.checkpoint.interval = "validation"
    made.train_cfg.val_interval = 3
    build_runner(made).train()
    assert [name for name in names(tmp_path) if name.endswith(".pth")] == [
        "iter_3.pth",
        "iter_5.pth",
    ]


class Killed(BaseException):
    """Stands for the end of a process at this line."""


@pytest.mark.parametrize("bytes_written", [0, 500])
def test_the_only_checkpoint_outlives_a_kill_while_the_next_is_written(
    tmp_path, monkeypatch, bytes_written
):
    put = LocalBackend.put

    def put_or_die(self, content, path):
        if "iter_4" not in str(path):
            return put(self, content, path)
        put(self, content[:bytes_written], path)
        raise Killed

    monkeypatch.setattr(LocalBackend, "put", put_or_die)
    with pytest.raises(Killed):
        build_runner(config(tmp_path, keep=1)).train()
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_2.pth"
    assert read_training_state(tmp_path / "iter_2.pth")["meta"]["iter"] == 2


def test_old_checkpoints_go_when_the_new_one_and_its_pointer_stand(tmp_path, monkeypatch):
    seen = []
    remove = LocalBackend.remove

    def watched(self, path):
        seen.append((Path(path).name, (tmp_path / "last_checkpoint").read_text()))
        remove(self, path)

    monkeypatch.setattr(LocalBackend, "remove", watched)
    build_runner(config(tmp_path, max_iters=6, keep=1)).train()
    assert seen == [("iter_2.pth", "iter_4.pth"), ("iter_4.pth", "iter_6.pth")]
    assert [name for name in names(tmp_path) if name.endswith(".pth")] == ["iter_6.pth"]


def test_a_validation_saves_nothing_where_no_best_checkpoint_is_wanted(tmp_path):
    runner = build_runner(config(tmp_path))
    runner.train()
    before = names(tmp_path)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.after_val_epoch(runner, {"AP": 0.5})
    assert names(tmp_path) == before


def test_a_full_disk_is_one_sentence_and_leaves_no_partial_file(tmp_path, monkeypatch):
    put = LocalBackend.put

    def full(self, content, path):
        if "iter_4" in str(path):
            put(self, content[:100], path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(self, content, path)

    monkeypatch.setattr(LocalBackend, "put", full)
    with pytest.raises(CheckpointError, match=r"iter_4\.pth.*No space left.*--resume"):
        build_runner(config(tmp_path)).train()
    assert [name for name in names(tmp_path) if "iter" in name] == ["iter_2.pth"]
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_2.pth"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_disk_that_is_full_keeps_the_checkpoint_before_and_ends_with_code_2(
    small_disk, tmp_path, capsys, sharded
):
    made = config(tmp_path, max_iters=6, keep=1)
    made.default_hooks.checkpoint.update(out_dir=str(small_disk))
    if sharded:
        made.strategy = dict(type="FSDP2", checkpoints="sharded")
    runner = build_runner(made)
    folder = small_disk / tmp_path.name
    before = {}

    class Filled(Hook):
        """What else is on the disk leaves no room for the second checkpoint."""

        def after_train_iter(self, runner, batch_idx, *args, **kwargs):
            if batch_idx != 2:
                return
            before.update(state_of(folder))
            with contextlib.suppress(OSError), (small_disk / "other").open("wb", 0) as other:
                while True:
                    other.write(bytes(4096))

    runner.register_hook(Filled(), "VERY_LOW")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_cli(runner.train)
    assert ended.value.code == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"iter_4\.pth.*No space left.*--resume", sentence)
    assert before
    assert state_of(folder) == before
    newest = latest_checkpoint(tmp_path)
    assert newest == folder / "iter_2.pth"


def state_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_a_killed_run_left_half_written_is_removed_by_the_next(tmp_path):
    (tmp_path / "iter_9.pth.123.456.tmp").write_bytes(b"half")
    build_runner(config(tmp_path, max_iters=2)).train()
    assert "iter_9.pth.123.456.tmp" not in names(tmp_path)


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    content = {"state_dict": {"w": torch.rand(40, 40)}, "meta": {"iter": 3}}
    path = tmp_path / "iter_3.pth"
    torch.save(content, path)
    whole = path.read_bytes()
    positions = random.Random(0).sample(range(len(whole) * 8), 400)
    found = 0
    for position in positions:
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << position % 8
        path.write_bytes(broken)
        try:
            state = read_training_state(path)
        except CheckpointError:
            found += 1
        else:  # in the padding between records
            assert torch.equal(state["state_dict"]["w"], content["state_dict"]["w"])
            assert state["meta"] == content["meta"]
    assert found > 200


def three_checkpoints(folder: Path) -> None:
    for number in (2, 4, 6):
        torch.save({"w": torch.rand(100)}, folder / f"iter_{number}.pth")
    (folder / "last_checkpoint").write_text("iter_6.pth")


def test_a_record_that_became_a_folder_is_noticed(tmp_path):
    path = tmp_path / "iter_3.pth"
    torch.save({"w": torch.rand(40, 40)}, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))
    content[entry + 38] |= 0x10  # PyTorch would give what was in memory
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_training_state(path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "gone"])
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tmp_path, caplog, damage):
    three_checkpoints(tmp_path)
    newest = tmp_path / "iter_6.pth"
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[content.index(b"data/0") + 200] ^= 1
    newest.write_bytes({"truncated": content[:700], "empty": b""}.get(damage, content))
    if damage == "gone":
        newest.unlink()
    logging.getLogger("llmdet").propagate = True
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == tmp_path / "iter_4.pth"
    assert "iter_6.pth" in caplog.text


def test_a_checkpoint_that_was_written_after_the_pointer_is_the_newest(tmp_path):
    three_checkpoints(tmp_path)
    torch.save({}, tmp_path / "iter_8.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_8.pth"


def test_checkpoints_of_an_older_run_in_the_folder_are_not_the_newest(tmp_path):
    torch.save({}, tmp_path / "iter_500.pth")
    os.utime(tmp_path / "iter_500.pth", (1, 1))
    three_checkpoints(tmp_path)
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_6.pth"


def test_a_folder_without_a_whole_checkpoint_is_refused(tmp_path):
    (tmp_path / "iter_2.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"iter_2\.pth.*--resume FILE"):
        latest_checkpoint(tmp_path)
