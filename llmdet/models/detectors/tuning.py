"""Fine-tuning a part of a detector: which weights train, and which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmdet.errors import ConfigError
from llmdet.models.low_rank import add_low_rank, is_low_rank
from llmdet.utils.construct import construct
from llmdet.utils.suggest import did_you_mean


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank maps that train in place of weights.

    Attributes:
        r: rank.
        alpha: the maps weigh alpha / r.
    """

    r: int = 16
    alpha: float = 32

    def __post_init__(self) -> None:
        if type(self.r) is not int or self.r < 1:
            raise ConfigError(f"model.tuning.lora.r={self.r!r}; give a whole number from 1")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float):
            raise ConfigError(f"model.tuning.lora.alpha={self.alpha!r}; give a number")


@dataclass(frozen=True)
class Tuning:
    """All of ``model.tuning``.

    Attributes:
        parts: of the detector, such as "decoder" or "encoder.fusion_layers", that train.
            Everything else gets no gradient and stays in eval mode.
        lora: train low-rank maps beside the linear maps of ``parts`` instead of the parts.
    """

    parts: tuple[str, ...]
    lora: LoRASettings | None = None

    @classmethod
    def from_config(cls, tuning: Mapping[str, Any] | None) -> Tuning | None:
        """Read ``model.tuning``; None where all trains.

        Raises:
            ConfigError: a key is unknown, or a value is none that it can have.
        """
        if tuning is None:
            return None
        settings = dict(tuning)
        parts, lora = settings.pop("parts", ()), settings.pop("lora", None)
        if not parts or not isinstance(parts, Sequence) or isinstance(parts, str):
            raise ConfigError(
                f"model.tuning.parts={parts!r}; list the parts that train, e.g. ['decoder']"
            )
        if lora is not None:
            lora = construct(LoRASettings, lora, "model.tuning.lora")
        return construct(cls, settings, "model.tuning", parts=tuple(parts), lora=lora)

    def apply_to(self, model: nn.Module) -> tuple[str, ...]:
        """Freeze and adapt the weights of a detector, in place.

        Returns:
            Names of the largest modules that are outside of all parts that train.

        Raises:
            ConfigError: it has no such part, another setting freezes one, or one has no linear
                map that LoRA could stand beside.
        """
        named = dict(model.named_modules())
        known = {*named, *(name for name, _ in model.named_parameters())} - {""}
        for part in self.parts:
            if part not in known:
                raise ConfigError(
                    f"model.tuning.parts names {part!r}, which is no part of "
                    f"{type(model).__name__}; {did_you_mean(part, known)}"
                )
            weights = [p for name, p in model.named_parameters() if _overlap(name, part)]
            if not any(parameter.requires_grad for parameter in weights):
                raise ConfigError(
                    f"model.tuning.parts lets {part!r} train, which another setting of the model "
                    "freezes (freeze_backbone, freeze_lm, use_dn): take one of the two out"
                )
            if self.lora is not None:
                self._adapt(part, named.get(part), self.lora)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and self._trains(name))
        inner = [name for name in named if name]
        outside = {name for name in inner if not any(_overlap(name, part) for part in self.parts)}
        return tuple(name for name in inner if name in outside and _parent(name) not in outside)

    def _adapt(self, part: str, module: nn.Module | None, lora: LoRASettings) -> None:
        if module is None or not add_low_rank(module, lora.r, lora.alpha):
            raise ConfigError(
                f"model.tuning.parts names {part!r}, which has no linear map beside which LoRA "
                "could stand: leave it out, or set model.tuning.lora=None"
            )

    def _trains(self, name: str) -> bool:
        if self.lora is not None:
            return is_low_rank(name)
        return any(_overlap(name, part) for part in self.parts)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _overlap(name: str, part: str) -> bool:
    """Whether one of two dotted names is, or is within, the other."""
    return f"{name}.".startswith(f"{part}.") or f"{part}.".startswith(f"{name}.")
