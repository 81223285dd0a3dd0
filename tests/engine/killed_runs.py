"""Trains in forked processes, each of which may kill itself; imports are paid once, here.

python killed_runs.py REPOSITORY TOY_DATA FOLDER
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook

from llmdet.datasets.sample import grounding_of
from llmdet.engine import build_runner, latest_checkpoint
from llmdet.errors import CheckpointError
from llmdet.testing.line import line_config
from llmdet.testing.programs import import_ahead
from llmdet.utils.config import load_config

root, toy, work = map(Path, sys.argv[1:])
STEPS = 4


class Watch(Hook):
    """Notes what every iteration was given and what it made of it."""

    def __init__(self, path, kill_at):
        self.path, self.kill_at = path, kill_at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        samples = data_batch["data_samples"]
        entry = {
            "iteration": runner.iter + 1,
            "images": [Path(sample.img_path).name for sample in samples],
            "sizes": [list(sample.img_shape) for sample in samples],
            "samples": [repr(grounding_of(sample)) for sample in samples],
            "losses": {name: float(value).hex() for name, value in outputs.items()},
        }
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if runner.iter + 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, rank, processes, *, kill_at=None, kill_in_save=None, resume=False, workers=1):
    options = {
        "data_root": f"{toy}/",
        "model.language_model.name": str(toy / "bert"),
        "model.lmm.model": str(toy / "language_model"),
    }
    config = load_config(root / "configs/quickstart/llmdet.py", options)
    loader = config.train_dataloader
    loader.update(batch_size=2 // processes, num_workers=workers, persistent_workers=workers > 0)
    loader.dataset.datasets[0].pipeline[4].num_region_caption = 2
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=STEPS, val_interval=100)
    config.update(work_dir=str(folder), val_cfg=None, val_dataloader=None, val_evaluator=None)
    config.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    config.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
    if resume:  # and the seed comes from the checkpoint
        config.update(resume=True, load_from=str(latest_checkpoint(folder)))
    else:
        config.randomness = dict(seed=5)
    if processes > 1:
        config.launcher = "pytorch"
    put = LocalBackend.put

    def put_half(self, content, path):
        if f"iter_{kill_in_save}." in str(path):
            put(self, content[: len(content) // 2], path)
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, content, path)

    LocalBackend.put = put_half
    runner = build_runner(config)
    runner.register_hook(Watch(folder / f"rank{rank}.jsonl", kill_at))
    runner.train()


def train_line(folder, rank, processes, *, resume, max_iters=2):
    """A training that takes a moment, in which not every rank finds the checkpoint.

    Ranks that end with equal weights leave a file, which says what they talked over.
    """
    config = line_config(folder, max_iters, default_scope="llmdet", launcher="pytorch")
    config.env_cfg = dict(dist_cfg=dict(backend="nccl", timeout=60))
    if resume[rank]:
        config.update(resume=True, load_from=str(latest_checkpoint(folder)))
    runner = build_runner(config)
    runner.train()
    assert runner.model.gradient_as_bucket_view
    weights = [torch.zeros(1) for _ in range(processes)]
    torch.distributed.all_gather(weights, runner.model.module.linear.bias.detach())
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    (folder / f"rank{rank}.equal").write_text(torch.distributed.get_backend())


def run(folder, processes, task=train, **options):
    """Ranks in processes of their own; returns how the first ended, as waitpid does."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        child = os.fork()
        if not child:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            status = 1
            try:
                task(folder, rank, processes, **options)
                status = 0
            except CheckpointError as error:
                (folder / f"rank{rank}.error").write_text(str(error))
                status = 2
            finally:
                sys.stderr.flush()
                os._exit(status)
        ranks.append(child)
    first = os.waitpid(ranks[0], 0)[1]
    for child in ranks[1:]:
        if first & 0x7F:  # killed; a launcher would do the same
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return first


def main():
    import_ahead()
    for processes in (1, 2):
        whole, killed = work / f"{processes}/whole", work / f"{processes}/killed"
        assert run(whole, processes) == 0
        assert run(killed, processes, kill_in_save=2) == signal.SIGKILL
        assert latest_checkpoint(killed).name == "iter_1.pth"
        assert run(killed, processes, resume=True, workers=2, kill_at=3) == signal.SIGKILL
        assert latest_checkpoint(killed).name == "iter_2.pth"
        assert run(killed, processes, resume=True, workers=0) == 0
    line = work / "line"
    assert run(line, 2, train_line, resume=[False, False]) == 0
    assert run(line, 2, train_line, resume=[True, False], max_iters=4) == 2 << 8


main()
