"""DeepSpeed's ZeRO: optimizer states are spread over processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn

from llmdet.engine.scalars import DeferredOptimWrapper, scalars_of
from llmdet.errors import ConfigError
from llmdet.registry import STRATEGIES

from .base import Strategy, mapped

#: Bytes of gradients that are sent at once; DeepSpeed would take ten times as many.
BUCKET = 200_000_000
#: Wrappers whose precision is that of a context around the forward pass, and nothing else.
_WRAPPERS = ("OptimWrapper", "BFloat16OptimWrapper")


@STRATEGIES.register_module()
class DeepSpeed(Strategy):
    """ZeRO-2 of DeepSpeed over all processes of a run.

    Optimizer states are spread; every process has all weights, and gradients until the step.
    Numbers are those of a run without strategy; mixed precision, clipping and accumulation are
    set as there. What spreads weights too is :class:`FSDP2`: ZeRO-3 has processes wait for each
    other forever where they do not run the same modules in the same order, as batches with and
    without boxes or captions do.

    Args:
        stage: 2.
        checkpoints: "consolidated"; see :class:`Strategy`.
        zero: further entries of DeepSpeed's ``zero_optimization``, such as bucket sizes.
    """

    def __init__(
        self,
        stage: int = 2,
        checkpoints: str = "consolidated",
        zero: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(checkpoints)
        if stage != 2:
            raise ConfigError(
                f"strategy.stage is {stage!r}: of DeepSpeed only stage 2 works here, as stage 3 "
                "wants all processes to run the same modules, whatever their batches hold; to "
                "spread weights too take strategy.type='FSDP2'"
            )
        if checkpoints == "sharded":
            raise ConfigError(
                "strategy.checkpoints='sharded' is for FSDP2: DeepSpeed's own files are pickles, "
                "which could run a program; take 'consolidated', or strategy.type='FSDP2'"
            )
        self.zero = dict(zero or {})

    def __repr__(self) -> str:
        return "DeepSpeed's ZeRO-2"

    def spread(self, model: nn.Module) -> nn.Module:
        """Move the model to this process's device; DeepSpeed spreads it with its optimizer."""
        if is_distributed():
            load_deepspeed()
        return model.to(torch.device(get_device()))

    def attach(self, model: nn.Module, wrapper: OptimWrapper) -> tuple[nn.Module, OptimWrapper]:
        """Spread a model and its optimizer; a process that is alone keeps them whole.

        Raises:
            ConfigError: DeepSpeed does not know such a precision, clipping or setting.
        """
        most = _max_norm(wrapper)
        if not is_distributed():
            return model, wrapper
        parameters = [list(group["params"]) for group in wrapper.optimizer.param_groups]
        engine = self._engine(model, wrapper, most)
        return ZeroModel(engine), ZeroOptimWrapper(engine, wrapper, parameters)

    def _engine(self, model: nn.Module, wrapper: OptimWrapper, max_norm: float) -> Any:
        deepspeed = load_deepspeed()
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # which only counts samples
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_norm,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # which would be compiled
            "zero_optimization": {
                "reduce_bucket_size": BUCKET // 4,
                **self.zero,
                "stage": 2,
            },
        }
        try:
            engine, *_ = deepspeed.initialize(
                model=model, optimizer=wrapper.optimizer, config=settings, dist_init_required=False
            )
        except ValueError as error:  # of pydantic, about `zero`
            raise ConfigError(f"strategy.zero is refused by DeepSpeed: {error}") from error
        return engine

    def gather(self, state: Any) -> Any:
        """A nested state with whole tensors on the main process."""
        if not is_main_process():
            return None
        return mapped(state, lambda tensor: tensor.detach().cpu())

    def scatter_optimizer(self, state: dict[str, Any], wrapper: OptimWrapper) -> dict[str, Any]:
        """The same state: :class:`ZeroOptimWrapper` takes this process's part."""
        return state


@MODEL_WRAPPERS.register_module()
class ZeroModel(nn.Module):
    """A model in DeepSpeed's engine, as mmengine's loops use it.

    Args:
        engine: of :func:`deepspeed.initialize`.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.module = engine.module
        self._run = engine.forward
        # The engine turns an autocast off that surrounds it: it is entered again inside.
        self._autocasts: list[Any] = []
        self.module.register_forward_pre_hook(self._enter)
        self.module.register_forward_hook(self._leave, always_call=True)
        self._outer: tuple[bool, torch.dtype] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model through the engine."""
        device = next(self.module.parameters()).device.type
        self._outer = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        try:
            return self._run(*args, **kwargs)
        finally:
            self._outer = None

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Forward and backward pass and update; what is to be logged."""
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, True)
            if isinstance(data, dict):
                losses = self(**data, mode="loss")
            else:
                losses = self(*data, mode="loss")
        total, logged = self.module.parse_losses(losses)
        optim_wrapper.update_params(total)
        return logged

    def val_step(self, data: Any) -> list[Any]:
        """Predictions for a batch."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list[Any]:
        """Predictions for a batch."""
        return self.module.test_step(data)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if self._outer is not None:
            device = next(module.parameters()).device.type
            enabled, dtype = self._outer
            context = torch.autocast(device, dtype=dtype, enabled=enabled)
            self._autocasts.append(context)
            context.__enter__()

    def _leave(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if self._autocasts:
            self._autocasts.pop().__exit__(None, None, None)


class ZeroOptimWrapper(DeferredOptimWrapper):
    """An optimizer whose states DeepSpeed spreads; its state is read and written whole.

    Args:
        engine: of :func:`deepspeed.initialize`.
        wrapper: of the same optimizer, which has its precision, clipping and accumulation.
        parameters: of each group of the optimizer, as the engine has spread them.
    """

    def __init__(
        self, engine: Any, wrapper: OptimWrapper, parameters: list[list[nn.Parameter]]
    ) -> None:
        super().__init__(wrapper.optimizer, accumulative_counts=wrapper._accumulative_counts)
        self.engine, self._precision, self._groups = engine, wrapper, parameters
        self._exchange: Any = None  # a context of all backward passes of a step

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The precision of the forward pass."""
        with self._precision.optim_context(model):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Compute gradients, which stay on this process until the step."""
        if self._exchange is None:
            self._exchange = self.engine.coalesce_grad_reduction()
            self._exchange.__enter__()
        self.engine.backward(loss, scale_wrt_gas=False)
        self._inner_count += 1

    def zero_grad(self, **kwargs: Any) -> None:
        """The engine has done this after its step."""

    def step(self, **kwargs: Any) -> None:
        """Exchange gradients, update this process's part of the weights, and exchange these."""
        # DeepSpeed would send gradients as the backward pass makes them, and add up those of
        # different weights where processes make them in another order, as batches with and
        # without captions do. At the end of this it sends them in the order of the parameters.
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.__exit__(None, None, None)
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        if self._precision.clip_grad_kwargs and norm is not None:
            scalars_of(self.message_hub).add({f"train/{self._precision.grad_name}": norm})

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state as a run without strategy has it; all processes call it together.

        Returns:
            With whole tensors in host memory on the main process, without any on the others.
        """
        state: dict[int, dict[str, Any]] = {}
        groups, number = [], 0
        for group, parameters in zip(self.optimizer.param_groups, self._groups, strict=True):
            numbers = list(range(number, number + len(parameters)))
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": numbers})
            number += len(parameters)
            for index, parameter in zip(numbers, parameters, strict=True):
                entry = self._whole_state(_place(self.engine.optimizer, parameter), parameter)
                if entry and is_main_process():
                    state[index] = entry
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this process's part of what :meth:`state_dict` of any strategy gave.

        Raises:
            ValueError: it is another model's, as PyTorch's optimizers say it.
        """
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(parameters) for parameters in self._groups]:
            raise ValueError("loaded state dict has other groups of parameters")
        for own, read in zip(self.optimizer.param_groups, groups, strict=True):
            own.update({key: value for key, value in read.items() if key != "params"})
        everything = [parameter for parameters in self._groups for parameter in parameters]
        for number, entry in state_dict["state"].items():
            parameter = everything[int(number)]
            place = _place(self.engine.optimizer, parameter)
            for name, value in entry.items():
                self._take(place, parameter, name, value)

    def _whole_state(self, place: _Place, parameter: nn.Parameter) -> dict[str, Any]:
        entry = {}
        for name, flat in self.optimizer.state.get(place.flat, {}).items():
            if not isinstance(flat, Tensor) or flat.shape != place.flat.shape:
                entry[name] = flat.detach().cpu() if isinstance(flat, Tensor) else flat
                continue
            whole = torch.zeros(parameter.numel(), dtype=flat.dtype, device=flat.device)
            place.of_parameter(whole).copy_(place.of_flat(flat))
            torch.distributed.reduce(whole, dst=0)
            if is_main_process():
                entry[name] = whole.view(parameter.shape).cpu()
        return entry

    def _take(self, place: _Place, parameter: nn.Parameter, name: str, value: Any) -> None:
        state = self.optimizer.state[place.flat]
        if name == "step" or not isinstance(value, Tensor):
            state[name] = value.clone() if isinstance(value, Tensor) else value
            return
        if value.shape != parameter.shape:
            raise ValueError("loaded state dict has tensors of another size")
        if name not in state:
            state[name] = torch.zeros_like(place.flat)
        place.of_flat(state[name]).copy_(place.of_parameter(value.flatten()))


@dataclass(frozen=True)
class _Place:
    """Where this process keeps its part of a parameter's optimizer state."""

    flat: Tensor  # [n] the tensor of many parameters' parts that the optimizer updates
    start: int  # of this parameter in it
    first: int  # number of the parameter that is there
    count: int  # how many numbers; none where other processes have the whole parameter

    def of_flat(self, values: Tensor) -> Tensor:
        """The part of ``values``, which is like ``flat``."""
        return values.narrow(0, self.start, self.count)

    def of_parameter(self, values: Tensor) -> Tensor:
        """The part of the flattened values of a whole parameter."""
        return values.narrow(0, self.first, self.count)


def _place(zero: Any, parameter: Any) -> _Place:
    """Where DeepSpeed's optimizer ``zero`` keeps the state of a parameter."""
    mapping = parameter._hp_mapping
    if mapping is None:
        groups = zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True)
        flat = next(flat for group, flat in groups if any(p is parameter for p in group))
        return _Place(flat, 0, 0, 0)
    flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
    within, inside = mapping.lp_fragment_address, mapping.hp_fragment_address
    return _Place(flat, inside.start, within.start, inside.numel)


def _max_norm(wrapper: OptimWrapper) -> float:
    """What gradients are clipped at, 0 without.

    Raises:
        ConfigError: precision or clipping are of a kind that DeepSpeed does not do so.
    """
    name = type(wrapper).__name__.removeprefix("Deferred")
    if name not in _WRAPPERS:
        raise ConfigError(
            f"optim_wrapper.type={name!r} does not work with DeepSpeed; take 'OptimWrapper' or "
            "'BFloat16OptimWrapper' (--amp)"
        )
    settings = dict(wrapper.clip_grad_kwargs or {})
    if not settings:
        return 0.0
    most = settings.pop("max_norm", None)
    if most is None or settings not in ({}, {"norm_type": 2}):
        raise ConfigError(
            f"optim_wrapper.clip_grad={dict(wrapper.clip_grad_kwargs)}: DeepSpeed clips by the "
            "norm of all gradients only, as dict(max_norm=...)"
        )
    return float(most)


def load_deepspeed() -> Any:
    """The package, without its kernels that would be compiled for CPUs.

    Raises:
        ConfigError: it is not installed.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise ConfigError(
            "strategy.type='DeepSpeed' needs DeepSpeed: pip install -e '.[deepspeed]', or take "
            "'FSDP2', which PyTorch has"
        ) from error
    if on_cpu:
        # It would compile a way to exchange tensors within a machine; gloo does that.
        vars(deepspeed.ops)["__compatible_ops__"] = {}
    return deepspeed
