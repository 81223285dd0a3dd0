"""Programs as files: ONNX, and what ``torch.export`` saves."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.export.program import (
    OUTPUTS,
    DetectorProgram,
    FixedPromptProgram,
    TextInputProgram,
    normalisation,
)
from llmdet.export.text import TEXT_INPUTS, EncodedPrompt
from llmdet.models.detectors.grounding_dino import GroundingDINO

#: Version of ONNX's operators; TensorRT 8.6, OpenVINO 2023.1 and onnxruntime 1.14 know it.
OPSET = 18
#: Sides of images of any size are multiples of this: the widest stride of the backbones.
MULTIPLE = 32
LARGEST_SIDE = 4096
#: The outputs of a file of ONNX.
DETECTIONS = OUTPUTS[:3]


@dataclass(frozen=True)
class ExportOptions:
    """What a program is made for."""

    height: int  # of images in pixels
    width: int
    dynamic: bool = False  # any number of images of any size; otherwise one of this size
    fp16: bool = False  # weights and most arithmetic in float16; inputs and outputs as without
    uint8: bool = False  # images [B, H, W, 3] uint8 RGB instead of normalised [B, 3, H, W] float32

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < 1 or (self.dynamic and (side % MULTIPLE or side > LARGEST_SIDE)):
                raise ConfigError(
                    f"{name}={side}: images of programs for any size have sides that are "
                    f"multiples of {MULTIPLE}, up to {LARGEST_SIDE}"
                )


def make_program(
    model: GroundingDINO, prompt: EncodedPrompt, options: ExportOptions, text_inputs: bool
) -> DetectorProgram:
    """The program that is going to be a file.

    Args:
        model: a detector in float32.
        prompt: what is looked for, unless ``text_inputs``.
        options: what it is made for.
        text_inputs: the program is told what to look for by tensors, one text for each image.

    Raises:
        ConfigError: ``text_inputs`` with a prompt that such a program cannot look for.
    """
    if text_inputs:
        prompt.check_text_inputs()
    if options.fp16:
        model = copy.deepcopy(model).half()
    if text_inputs:
        return TextInputProgram(model, uint8=options.uint8).eval()
    return FixedPromptProgram(model, prompt, uint8=options.uint8).eval()


def example_inputs(
    prompt: EncodedPrompt, options: ExportOptions, batch: int, size: tuple[int, int], texts: bool
) -> dict[str, Tensor]:
    """Inputs of a program by name: coloured blocks, the same in every run.

    Args:
        prompt: one text where ``texts``.
        options: how images are given.
        batch: number of images.
        size: height and width.
        texts: the program takes texts.
    """
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(batch, 3, 6, 8, generator=generator)
    image = torch.nn.functional.interpolate(blocks, size, mode="bilinear")
    if options.uint8:
        image = (image * 64 + 128).clamp(0, 255).permute(0, 2, 3, 1).contiguous().to(torch.uint8)
    inputs = {"image": image}
    if texts:
        for name in TEXT_INPUTS:
            tensor = getattr(prompt.tensors, name)
            if name == "token_map":  # two rows: sizes of 1 would be fixed
                tensor = torch.cat([tensor, torch.zeros_like(tensor[:, :1])], 1)
            inputs[name] = tensor.expand(batch, *tensor.shape[1:]).contiguous()
    return inputs


def smallest_side(program: DetectorProgram) -> int:
    """The least multiple of :data:`MULTIPLE` whose square image has a pixel for each query."""
    detector: GroundingDINO = program.detector
    with torch.no_grad():
        probe = torch.zeros(1, 3, 128, 128, dtype=detector.level_embed.dtype)
        strides = [128 / feat.shape[-1] for feat in detector.extract_feat(probe)]
    side = MULTIPLE
    while sum(int(side / stride) ** 2 for stride in strides) < detector.num_queries:
        side += MULTIPLE
    return max(side, 2 * MULTIPLE)  # an axis whose least size is 1 would be fixed


def trace(
    program: DetectorProgram, prompt: EncodedPrompt, options: ExportOptions
) -> torch.export.ExportedProgram:
    """The program as a graph of torch's operators."""
    texts = isinstance(program, TextInputProgram)
    batch = 2 if options.dynamic else 1
    inputs = example_inputs(prompt, options, batch, (options.height, options.width), texts)
    with torch.no_grad():
        return torch.export.export(
            program,
            tuple(inputs.values()),
            dynamic_shapes=_free_sizes(program, options, tuple(inputs)),
            strict=False,
            # Some of what torch wants to know of free sizes is always true and beyond its proofs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _free_sizes(
    program: DetectorProgram, options: ExportOptions, names: tuple[str, ...]
) -> dict[str, dict[int, Any]]:
    """Per input, the axes that may have any size."""
    Dim = torch.export.Dim
    free: dict[str, dict[int, Any]] = {name: {} for name in names}
    if len(names) > 1:
        tokens, classes = Dim("tokens", min=2, max=4096), Dim("classes", min=1, max=4096)
        for name in ("text_features", "token_mask", "position_ids"):
            free[name][1] = tokens
        free["attention_mask"] = {1: tokens, 2: tokens}
        free["token_map"] = {1: classes, 2: tokens}
    if options.dynamic:
        batch = Dim("batch", min=1, max=1024)
        least, most = smallest_side(program) // MULTIPLE, LARGEST_SIDE // MULTIPLE
        first = 1 if options.uint8 else 2
        free["image"][first] = MULTIPLE * Dim("rows", min=least, max=most)
        free["image"][first + 1] = MULTIPLE * Dim("columns", min=least, max=most)
        for axes in free.values():
            axes[0] = batch
    return free


def describe(
    model: GroundingDINO, prompt: EncodedPrompt | None, options: ExportOptions
) -> dict[str, str]:
    """What a user of the file must know, as JSON by name.

    Args:
        model: the detector.
        prompt: None for a program that takes texts, whose classes come with them.
        options: what the program is made for.
    """
    mean, std = normalisation(model)
    about = {
        "classes": list(prompt.classes) if prompt else None,
        "mean": mean,  # of RGB in 0..255
        "std": std,
        **asdict(options),
        "multiple": MULTIPLE if options.dynamic else 1,  # of sides
        "boxes": "xyxy in 0..1 of the image",
    }
    return {name: json.dumps(value) for name, value in about.items()}


def write_torch_export(
    graph: torch.export.ExportedProgram, about: dict[str, str], path: str | Path
) -> None:
    """Write a file for ``torch.export.load``; its ``llmdet.json`` is what :func:`describe` says."""
    torch.export.save(graph, path, extra_files={"llmdet.json": json.dumps(about)})


def write_onnx(
    graph: torch.export.ExportedProgram, about: dict[str, str], path: str | Path
) -> None:
    """Write a file of ONNX with :data:`DETECTIONS` as outputs.

    Raises:
        ConfigError: the packages of the extra ``export`` are missing.
    """
    require_packages()
    # The exporter tells its progress on the standard output.
    with contextlib.redirect_stdout(io.StringIO()), _quiet("onnxscript", "onnx_ir", "torch.onnx"):
        made = torch.onnx.export(
            graph,
            dynamo=True,
            opset_version=OPSET,
            input_names=_input_names(graph),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert made is not None
    # The values stay in the graph under their names, where the check finds them.
    del made.model.graph.outputs[len(DETECTIONS) :]
    made.model.metadata_props.update(about)
    made.save(str(path))


def _input_names(graph: torch.export.ExportedProgram) -> list[str]:
    return ["image", *TEXT_INPUTS][: len(graph.graph_signature.user_inputs)]


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def require_packages() -> None:
    """Refuse to go on without the packages that ONNX needs.

    Raises:
        ConfigError: one is missing.
    """
    packages = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"ONNX needs the package {missing[0]}, which is not installed: "
            "pip install 'llmdet[export]'"
        )
