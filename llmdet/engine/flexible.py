"""mmengine's runner of strategies (DeepSpeed, FSDP), with weights that must fit."""

from __future__ import annotations

from typing import Any

from mmengine.runner import FlexibleRunner as MMEngineFlexibleRunner
from torch import nn

from llmdet.checkpoint import load_weights
from llmdet.registry import MODELS, RUNNERS

from .conversations import share_conversation_settings
from .runner import SlimCheckpoints


@RUNNERS.register_module()
class FlexibleRunner(SlimCheckpoints, MMEngineFlexibleRunner):
    """Takes ``load_from`` in every known format, and all of it but what ``load_missing`` names.

    mmengine's loads what fits, after the model is spread over processes; here that is done before.
    """

    _load_from: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.model, dict):
            self.model = MODELS.build(self.model)
        if self._load_from is None or self._resume:
            return
        self.model.init_weights()  # the strategy would do it later, and only once
        missing = self.cfg.get("load_missing") or ()
        load_weights(self.model, self._load_from, load_missing=missing)
        self._load_from = None

    def train(self) -> nn.Module:
        """Train; workers tokenise conversations as the model reads them."""
        share_conversation_settings(self.model, self._train_dataloader)
        return super().train()

    def get_hooks_info(self) -> str:
        """Names of the hooks by priority."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)
