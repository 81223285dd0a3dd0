"""Captions that begin to teach when there is something to be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError
from llmdet.registry import HOOKS


@HOOKS.register_module()
class LateCaptionsHook(Hook):
    """Lets a detector of random weights learn alone first, and its language model afterwards.

    As long as features tell nothing of shapes, a language model learns to guess them from the words
    that it has said, and goes on guessing.

    Args:
        begin: share of the run in 0..1 after which conversations teach. They are taken out of
            earlier batches, and their losses are zero there.

    Raises:
        ConfigError: `begin` is no share.
    """

    def __init__(self, begin: float) -> None:
        if not 0 <= begin < 1:
            raise ConfigError(f"LateCaptionsHook.begin is {begin!r}; give a share of the run, 0..1")
        self.begin = begin

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Take the conversations out of a batch, or start the language model's optimizer."""
        begin = round(self.begin * runner.max_iters)
        if runner.iter < begin:
            for sample in data_batch["data_samples"]:
                silent = replace(grounding_of(sample), conversations=())
                sample.set_metainfo({"grounding": silent})
        elif runner.iter == begin:
            _forget_statistics(runner)


def _forget_statistics(runner: Runner) -> None:
    """Moments of gradients that were all zero would make the first steps several times too long."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    state = runner.optim_wrapper.optimizer.state
    for name in ("lmm", "image_captioner", "region_captioner"):
        part = getattr(model, name, None)
        for parameter in () if part is None else part.parameters():
            state.pop(parameter, None)
