"""Checkpoints of a run without what need not, or must not, be in them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size

from llmdet.checkpoint.base import leave_out_base
from llmdet.checkpoint.frozen import leave_out_frozen, put_back_frozen
from llmdet.models.wrappers import bare

logger = logging.getLogger(__name__)


class SlimCheckpoints:
    """Of a runner: checkpoints without frozen language models, and without programs to execute."""

    model: Any
    base: dict[str, str] | None = None  # what its checkpoints leave out, and where it is

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; EMAHook swaps weights, so that it sees whole checkpoints."""
        checkpoint = kwargs.get("checkpoint", {})
        if fn_name == "after_load_checkpoint":
            meta = checkpoint.get("meta", {})
            meta.pop("config", None)  # a program, which mmengine would execute
            _report_processes(meta)
            for entry, lead in (("state_dict", ""), ("ema_state_dict", "module.")):
                if entry in checkpoint:
                    path = "the checkpoint"
                    put_back_frozen(checkpoint[entry], meta, bare(self.model), path, lead)
        super().call_hook(fn_name, **kwargs)  # type: ignore[misc]
        if fn_name == "before_save_checkpoint":
            checkpoint["meta"]["processes"] = get_world_size()
            leave_out_frozen(checkpoint, bare(self.model))
            leave_out_base(checkpoint, self.base)


def _report_processes(meta: Mapping[str, Any]) -> None:
    before = meta.get("processes", get_world_size())
    if before != get_world_size():
        logger.warning(
            "the checkpoint is of a run with %d processes, and this one has %d: the order of "
            "images and the size of a step differ from here on",
            before,
            get_world_size(),
        )
