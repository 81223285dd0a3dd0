"""``torch.compile`` over the parts of a detector that take most of a training step.

A part is compiled for the sizes of its inputs, and batches of a detector have another size each
time. So images are padded until both sides are multiples of a number of pixels, and the backbone,
whose windows are cut by numbers that Python computes, is compiled once for each padded size. Layers
of encoder and decoder are compiled once for all sizes, and what is compiled of one layer serves
all layers of its kind.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import nn

from llmdet.errors import ConfigError
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.utils.construct import construct

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompileSettings:
    """What ``compile`` of a config may say; ``compile=True`` takes the defaults.

    Attributes:
        image_multiple: images are padded until both sides are multiples of so many pixels.
        text_multiple: prompts are padded to multiples of so many tokens.
        image_sizes: most padded sizes that the backbone is compiled for; images of further sizes
            run as without.
        backend: of ``torch.compile``.
    """

    image_multiple: int = 128
    text_multiple: int = 16
    image_sizes: int = 64
    backend: str | Callable[..., Any] = "inductor"

    def __post_init__(self) -> None:
        for name in ("image_multiple", "text_multiple", "image_sizes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"compile.{name} is {value!r}; give a whole number from 1")
        known = torch.compiler.list_backends(exclude_tags=())
        if isinstance(self.backend, str) and self.backend not in known:
            raise ConfigError(
                f"compile.backend is {self.backend!r}, which this torch does not know; "
                f"choose one of {', '.join(sorted(known))}"
            )

    @classmethod
    def from_config(cls, given: Any) -> CompileSettings | None:
        """Settings of ``compile`` in a config; None where nothing shall be compiled.

        Raises:
            ConfigError: an unknown key, or a value that no setting can have.
        """
        if given is None or given is False:
            return None
        if given is not True and not isinstance(given, Mapping):
            names = ", ".join(field.name for field in fields(cls))
            raise ConfigError(f"compile is {given!r}; give True, or a dict of {names}")
        return construct(cls, {} if given is True else given, "compile")


class WhileTraining:
    """A module's forward method, compiled while the detector that it is a part of trains.

    Images are validated one by one and each in its own size, for which nothing is compiled.
    """

    def __init__(self, module: nn.Module, detector: nn.Module, **options: Any) -> None:
        self.plain: Callable[..., Any] = module.forward
        self.compiled: Callable[..., Any] = torch.compile(self.plain, **options)
        self.detector = detector

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.compiled if self.detector.training else self.plain)(*args, **kwargs)


def compile_for_training(model: nn.Module, settings: CompileSettings) -> None:
    """Have the backbone, the neck and the layers of encoder and decoder compiled, in place.

    Nothing is compiled before the first step that needs it.

    Raises:
        ConfigError: the model is no detector whose parts are known, or its images are not padded
            by mmdet's preprocessor.
    """
    preprocessor = getattr(model, "data_preprocessor", None)
    if not isinstance(model, GroundingDINO) or not isinstance(preprocessor, DetDataPreprocessor):
        raise ConfigError(
            f"compile knows the parts of GroundingDINO with a DetDataPreprocessor, not of "
            f"{type(model).__name__} with {type(preprocessor).__name__}: leave it out"
        )
    multiple = math.lcm(preprocessor.pad_size_divisor, settings.image_multiple)
    preprocessor.pad_size_divisor = multiple
    model.language_model.length_multiple = settings.text_multiple
    # Of one function: a backbone has one size after the other, layers have few variants.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, settings.image_sizes)
    config.accumulated_recompile_limit = max(
        config.accumulated_recompile_limit, 4 * settings.image_sizes
    )
    encoder, decoder = model.encoder, model.decoder
    layers = [*encoder.fusion_layers, *encoder.text_layers, *encoder.layers, *decoder.layers]
    for dynamic, modules in ((False, [model.backbone, model.neck]), (True, layers)):
        for module in modules:
            compiled = WhileTraining(module, model, dynamic=dynamic, backend=settings.backend)
            module.forward = compiled  # type: ignore[method-assign]
    logger.info(
        "torch.compile: backbone, encoder and decoder, images padded to multiples of %d pixels; "
        "the first steps, and the first of each size of images, compile and take long",
        multiple,
    )
