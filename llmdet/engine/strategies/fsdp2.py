"""FSDP2: every process keeps a part of each parameter and gathers what a layer needs as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_distributed, is_main_process
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from llmdet.models.language.language_model import LanguageModel
from llmdet.registry import STRATEGIES

from .base import Strategy, mapped


@STRATEGIES.register_module()
class FSDP2(Strategy):
    """PyTorch's fully sharded data parallel over all processes of a run.

    Weights, gradients and optimizer states take 1 / N of their size on each of N devices. A
    decoder layer of the language model is gathered while it runs; the detector, which is small
    beside it, is gathered for the whole step. Numbers are those of a run without strategy.

    Args:
        checkpoints: see :class:`Strategy`.
        reshard_after_forward: let a layer's weights go after its forward pass and gather them
            again for the backward pass; without, a step needs more memory and less exchange.
    """

    def __init__(
        self, checkpoints: str = "consolidated", reshard_after_forward: bool = True
    ) -> None:
        super().__init__(checkpoints)
        self.reshard_after_forward = reshard_after_forward

    def spread(self, model: nn.Module) -> nn.Module:
        """Spread in place; a process that is alone only moves the model to its device."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        device = torch.device(get_device())
        if not is_distributed():
            return model.to(device)
        mesh = init_device_mesh(device.type, (get_world_size(),))
        for part in model.modules():
            if isinstance(part, LanguageModel):
                part.in_every_step = True
        for unit in units(model):
            fully_shard(unit, mesh=mesh, reshard_after_forward=self.reshard_after_forward)
        model.data_preprocessor.to(device)  # has a device of its own to remember
        fully_shard(model, mesh=mesh)
        return model

    def __repr__(self) -> str:
        return f"FSDP2 with {self.checkpoints} checkpoints"

    def gather(self, state: Any) -> Any:
        """A nested state with whole tensors on the main process."""
        gathered = mapped(state, _gathered)
        return gathered if is_main_process() else None

    def scatter_optimizer(self, state: dict[str, Any], wrapper: OptimWrapper) -> dict[str, Any]:
        """This process's part of an optimizer state that has whole tensors."""
        parameters = [p for group in wrapper.optimizer.param_groups for p in group["params"]]
        parts = {
            number: {name: _part_like(parameters[number], value) for name, value in entry.items()}
            for number, entry in state["state"].items()
        }
        return {**state, "state": parts}


def units(model: nn.Module) -> Iterator[nn.Module]:
    """The parts of language models that are gathered each by itself, inner before outer.

    Embeddings and head are two, unless they are one tensor: that belongs to the whole model.
    """
    for part in model.modules():
        if not isinstance(part, LanguageModel):
            continue
        yield from part.causal_lm.get_decoder().layers
        words = part.causal_lm.get_input_embeddings()
        head = part.causal_lm.get_output_embeddings()
        if words.weight is not head.weight:
            yield words
            yield head


def _gathered(tensor: Tensor) -> Tensor | None:
    gather = getattr(tensor, "full_tensor", None)
    whole = tensor if gather is None else gather()
    return whole.detach().cpu() if is_main_process() else None


def _part_like(parameter: Tensor, value: Any) -> Any:
    """This process's part of a whole tensor ``value`` that belongs to ``parameter``."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:  # the number of steps
        return value
    value = value.to(parameter.device)
    # Every process has read the same file: nothing needs to be sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
