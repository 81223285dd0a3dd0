"""Trainings of benchmarks on the toy set: configs moved into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def toy_config(file: str, toy: Path, steps: int) -> Any:
    """A config of the toy set in a folder of its own, of so many steps and without tests.

    Args:
        file: of ``configs/``, seen from the repository.
        toy: the folder, in the place of ``data/toy``.
        steps: how long it trains.
    """
    from mmengine.config import Config

    config = Config.fromfile(ROOT / file)
    moved = _replaced(config.to_dict(), "data/toy", str(toy))
    moved["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": steps}
    for stage in ("val", "test"):
        for part in ("cfg", "dataloader", "evaluator"):
            moved.pop(f"{stage}_{part}", None)
    return Config(moved)


def train(config: Any, folder: Path, seed: int) -> Any:
    """Train a config in ``folder/run`` with one thread; the trained model."""
    import torch

    from llmdet.engine import build_runner

    torch.set_num_threads(1)
    config.work_dir, config.randomness = str(folder / "run"), {"seed": seed}
    config.experiment_name = str(folder)
    config.default_hooks.pop("visualization")
    config.visualizer.vis_backends = [{"type": "LocalVisBackend"}]
    config.default_hooks.checkpoint.interval = config.train_cfg.max_iters
    return build_runner(config).train()


def trained_weights(folder: Path) -> Path:
    """The last checkpoint of :func:`train`."""
    return folder / "run" / (folder / "run" / "last_checkpoint").read_text().strip()


def _replaced(value: Any, old: str, new: str) -> Any:
    """A tree of dicts, lists and strings with one text in place of another."""
    if isinstance(value, dict):
        return {key: _replaced(part, old, new) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(part, old, new) for part in value)
    return value.replace(old, new) if isinstance(value, str) else value
