"""FSDP2: every process keeps a part of each parameter and gathers what a layer needs as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_distributed, is_main_process
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from llmdet.models.language.causal_lm import without_weights
from llmdet.models.language.language_model import LanguageModel
from llmdet.registry import STRATEGIES

from .base import Strategy, mapped


@STRATEGIES.register_module()
class FSDP2(Strategy):
    """PyTorch's fully sharded data parallel over all processes of a run.

    Weights, gradients and optimizer states take 1 / N of their size on each of N devices. A
    decoder layer of the language model is gathered while it runs; the detector, which is small
    beside it, is gathered for the whole step. Numbers are those of a run without strategy.

    At the start only the main process has the language model's weights, and sends each of the
    others its part.

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
        whole = _tensors(model) if self.gives_weights else {}
        mesh = init_device_mesh(device.type, (get_world_size(),))
        for part in model.modules():
            if isinstance(part, LanguageModel):
                part.in_every_step = True
        for unit in units(model):
            _allocate(unit)
            fully_shard(unit, mesh=mesh, reshard_after_forward=self.reshard_after_forward)
        model.data_preprocessor.to(device)  # has a device of its own to remember
        _allocate(model)
        fully_shard(model, mesh=mesh)
        _send(model, whole)
        return model

    sends_weights = True

    @property
    def gives_weights(self) -> bool:
        """Whether this is the main process."""
        return is_main_process()

    def building(self) -> AbstractContextManager[None]:
        """Language models take no memory outside of the main process."""
        return nullcontext() if self.gives_weights else without_weights()

    def keep_whole(self, model: nn.Module) -> nn.Module:
        """Give every process the whole model of the main process."""
        device = torch.device(get_device())
        if not is_distributed():
            return model.to(device)
        _allocate(model)
        model.to(device)
        _send(model, _tensors(model) if self.gives_weights else {})
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
        if any(int(number) >= len(parameters) for number in state["state"]):
            raise ValueError("loaded state dict has other groups of parameters")
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


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, which stay as they are when the model is spread."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in held}


def _allocate(module: nn.Module) -> None:
    """Give tensors on the meta device places in host memory; tied ones stay tied."""
    known: dict[int, Tensor] = {}
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, value in held.items():
                if value is None or not value.is_meta:
                    continue
                if id(value) not in known:
                    place = torch.empty_like(value, device="cpu")
                    if isinstance(value, nn.Parameter):
                        place = nn.Parameter(place, value.requires_grad)
                    known[id(value)] = place
                held[name] = known[id(value)]  # type: ignore[assignment]


@torch.no_grad()
def _send(model: nn.Module, whole: dict[str, Tensor]) -> None:
    """Fill a model of all processes with the main one's tensors, which are let go one by one."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_main_process():
            value = whole.pop(name).to(tensor.device).contiguous()
        else:
            value = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        torch.distributed.broadcast(value, 0)
        tensor.copy_(_part_like(tensor, value))


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
    # Every process has the same whole tensor: nothing needs to be sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
