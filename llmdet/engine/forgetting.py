"""What fine-tuning gains on its own data, and what it forgets of everything else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from llmdet.errors import ConfigError
from llmdet.registry import HOOKS
from llmdet.utils.whole_files import written_whole

logger = logging.getLogger(__name__)

Metrics = dict[str, float]

#: File in the run's folder.
REPORT = "before_after.json"
_KEY = "before_fine_tuning"  # in the message hub, which checkpoints hold


@dataclass(frozen=True)
class Measured:
    """Metrics of one state of a model, by name, 0 to 1."""

    target: Metrics  # on the validation set
    zero_shot: Metrics  # on the classes of pre-training


@HOOKS.register_module()
class ForgettingHook(Hook):
    """Measures target and zero-shot accuracy before the first step and after the last one.

    Target is what ``val_dataloader`` and ``val_evaluator`` of the config measure, zero-shot what
    ``zero_shot_dataloader`` and ``zero_shot_evaluator`` do: data like that of pre-training, of
    which the run trains nothing. At the end both stand side by side in the log, and all metrics in
    ``before_after.json`` of the run's folder; the zero-shot ones also go to TensorBoard and other
    backends. A resumed run takes what was measured first from its checkpoint.
    """

    def __init__(self) -> None:
        self._validated: tuple[int, Metrics] | None = None  # at which iteration

    def before_run(self, runner: Runner) -> None:
        """Refuse a config that leaves out one of the sets.

        Raises:
            ConfigError: it does.
        """
        for name in ("val_dataloader", "zero_shot_dataloader", "zero_shot_evaluator"):
            if runner.cfg.get(name) is None:
                raise ConfigError(
                    f"ForgettingHook compares val_dataloader with zero_shot_dataloader, and the "
                    f"config has no {name}: add it, or take the hook out of custom_hooks"
                )

    def before_train(self, runner: Runner) -> None:
        """Measure what the run starts from."""
        if runner.iter > 0:
            return
        before = Measured(_on_target(runner), self._on_zero_shot(runner))
        runner.message_hub.update_info(_KEY, asdict(before))
        logger.info("before training: %s", _sentence(before))

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Keep what was measured, which is not repeated at the end."""
        self._validated = runner.iter, _plain(metrics or {})

    def after_train(self, runner: Runner) -> None:
        """Measure what the run came to, and report."""
        known = self._validated is not None and self._validated[0] == runner.iter
        target = self._validated[1] if known and self._validated else _on_target(runner)
        after = Measured(target, self._on_zero_shot(runner))
        before = runner.message_hub.get_info(_KEY, None)
        if is_main_process():
            report = {"before": before, "after": asdict(after), "iterations": runner.iter}
            path = Path(runner.work_dir, REPORT)
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            rows = {} if before is None else {"before": Measured(**before)}
            logger.info("%s", comparison({**rows, f"after {runner.iter:,} iterations": after}))
            logger.info("all metrics of both are in %s", path)

    def _on_zero_shot(self, runner: Runner) -> Metrics:
        metrics = on_zero_shot(runner)
        if is_main_process():
            values = {f"zero_shot/{name}": value for name, value in metrics.items()}
            runner.visualizer.add_scalars(values, step=runner.iter)
        return metrics


def measure_both(runner: Runner) -> Measured:
    """Target and zero-shot accuracy of the runner's model as it is now."""
    return Measured(_on_target(runner), on_zero_shot(runner))


def on_zero_shot(runner: Runner) -> Metrics:
    """Metrics on ``zero_shot_dataloader`` of the runner's config.

    The data loader is built for this one pass, so that no workers wait through a training.
    """
    loader = runner.build_dataloader(runner.cfg.zero_shot_dataloader)
    evaluator = runner.build_evaluator(runner.cfg.zero_shot_evaluator)
    evaluator.dataset_meta = getattr(loader.dataset, "metainfo", None)
    return _measured(runner, loader, evaluator)


def comparison(rows: Mapping[str, Measured]) -> str:
    """A table of several states of a model; the last line says what changed from first to last."""
    first, *_, last = [*rows.values()] * 2  # also of a single row
    names = [_first_name(last.target), _first_name(last.zero_shot)]
    width = max(map(len, rows)) + 2
    lines = [f"target is {names[0]} of the validation set, zero-shot {names[1]} of other data"]
    lines.append(f"{'':<{width}}{'target':>10}{'zero-shot':>12}")
    for title, measured in rows.items():
        values = measured.target[names[0]], measured.zero_shot[names[1]]
        lines.append(f"{title:<{width}}{values[0]:>10.4f}{values[1]:>12.4f}")
    if len(rows) > 1:
        gain = last.target[names[0]] - first.target[names[0]]
        loss = last.zero_shot[names[1]] - first.zero_shot[names[1]]
        lines.append(f"{'change':<{width}}{gain:>+10.4f}{loss:>+12.4f}")
    return "\n  ".join(lines)


def _on_target(runner: Runner) -> Metrics:
    loop: Any = runner.val_loop
    return _measured(runner, loop.dataloader, loop.evaluator)


@torch.no_grad()
def _measured(runner: Any, loader: Any, evaluator: Any) -> Metrics:
    """Metrics of a model on the data of a loader; no hook sees a validation."""
    model = runner.model
    training = model.training
    model.eval()
    terminal = getattr(runner, "terminal", None) if is_main_process() else None
    if terminal is not None:
        terminal.start("measuring", len(loader))
    with _averaged_weights(runner):
        for number, batch in enumerate(loader, 1):
            evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
            if terminal is not None:
                terminal.advance("measuring", number)
    metrics = _plain(evaluator.evaluate(len(loader.dataset)))
    if terminal is not None:
        terminal.finish("measuring")
    model.train(training)
    return metrics


@contextmanager
def _averaged_weights(runner: Runner) -> Iterator[None]:
    """With mmengine's EMAHook it is the average that is validated, and so it is here."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in hooks:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in hooks:
            hook.after_val_epoch(runner)


def _plain(metrics: Mapping[str, float]) -> Metrics:
    return {name: float(value) for name, value in metrics.items()}


def _first_name(metrics: Metrics) -> str:
    """The metric that an evaluator reports first, by which checkpoints are compared too."""
    return next(iter(metrics))


def _sentence(measured: Measured) -> str:
    target, zero_shot = _first_name(measured.target), _first_name(measured.zero_shot)
    return (
        f"target {target} {measured.target[target]:.4f}, "
        f"zero-shot {zero_shot} {measured.zero_shot[zero_shot]:.4f}"
    )
