"""What a runner asks of a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.registry import STRATEGIES

#: Kinds of checkpoints that a strategy can write.
CHECKPOINTS = ("consolidated", "sharded")


class Strategy:
    """Spreads weights, gradients and optimizer states over the processes of a run.

    Args:
        checkpoints: "consolidated" gathers everything into one file, as runs without strategy
            write it; "sharded" has every process write its part into a folder.
    """

    def __init__(self, checkpoints: str = "consolidated") -> None:
        if checkpoints not in CHECKPOINTS:
            raise ConfigError(
                f"strategy.checkpoints is {checkpoints!r}; choose 'consolidated' or 'sharded'"
            )
        self.checkpoints = checkpoints

    #: Whether the main process sends the others its weights when the model is spread.
    sends_weights = False

    @property
    def gives_weights(self) -> bool:
        """Whether this process builds, initialises and loads weights; others are sent them."""
        return True

    def building(self) -> AbstractContextManager[None]:
        """A ``with`` block in which this process builds the model."""
        return nullcontext()

    def spread(self, model: nn.Module) -> nn.Module:
        """Spread ``model`` over the devices; it has its weights where they are given."""
        raise NotImplementedError

    def keep_whole(self, model: nn.Module) -> nn.Module:
        """Move a model that is not trained to this process's device, with all weights."""
        return model.to(torch.device(get_device()))

    def attach(self, model: nn.Module, wrapper: OptimWrapper) -> tuple[nn.Module, OptimWrapper]:
        """What trains the model that was spread, with the optimizer that was built over it."""
        return model, wrapper

    def gather(self, state: Any) -> Any:
        """A nested state with whole tensors in host memory; all processes call this together.

        Returns:
            The state on the main process, None on the others.
        """
        raise NotImplementedError

    def scatter_optimizer(self, state: dict[str, Any], wrapper: OptimWrapper) -> dict[str, Any]:
        """This process's part of an optimizer state that has whole tensors."""
        raise NotImplementedError


def build_strategy(settings: Mapping[str, Any] | None) -> Strategy | None:
    """The strategy of a config, None where it names none.

    Raises:
        ConfigError: it is of a kind that only mmengine's own runner can use.
    """
    if settings is None:
        return None
    built = STRATEGIES.build(dict(settings))
    if not isinstance(built, Strategy):
        raise ConfigError(
            f"strategy.type={settings.get('type')!r} is mmengine's, which neither runs on CPUs nor "
            "checks weights; take 'FSDP2' or 'DeepSpeed'"
        )
    return built


def mapped(state: Any, function: Callable[[Tensor], Any]) -> Any:
    """A copy of nested containers with ``function`` of each tensor, in one order everywhere."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, dict):
        return type(state)((key, mapped(value, function)) for key, value in state.items())
    if isinstance(state, list | tuple):
        return type(state)(mapped(value, function) for value in state)
    return state
