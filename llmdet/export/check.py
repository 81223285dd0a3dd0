"""A written file beside PyTorch: the same numbers, and how long both take.

Programs that round otherwise choose other queries where two pixels are equally likely, and what a
query says depends on its place among the queries. So a choice is compared by its likelihoods, and
everything behind it with PyTorch's answer to the same choice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.export.program import OUTPUTS, DetectorProgram
from llmdet.export.writing import DETECTIONS, require_packages

#: Largest differences of scores and boxes, both in 0..1.
TOLERANCE = 1e-4
#: The same in float16, whose numbers have 11 bits.
TOLERANCE_FP16 = 5e-2

Tensors = Mapping[str, Tensor]
Runner = Callable[[Tensors], dict[str, Tensor]]


@dataclass(frozen=True)
class Comparison:
    """Largest differences between a file and PyTorch, all of numbers in 0..1."""

    choice: float  # likelihood of the n-th query's pixel
    scores: float  # probability of any query and token
    boxes: float  # coordinate of any query
    detections: float  # boxes and scores of the answer, against that of its own queries

    def largest(self) -> float:
        """The largest of all."""
        return max(self.choice, self.scores, self.boxes, self.detections)


def onnx_runner(path: str | Path) -> Runner:
    """Run a file of ONNX as it is; gives its outputs by name."""
    session = _session(str(path))
    return lambda inputs: _run_session(session, inputs, DETECTIONS)


def onnx_inner_runner(path: str | Path) -> Runner:
    """Run a file of ONNX; gives :data:`OUTPUTS`, those within its graph as well."""
    require_packages()
    import onnx

    model = onnx.load(str(path))
    for name in OUTPUTS[len(DETECTIONS) :]:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = _session(model.SerializeToString())
    return lambda inputs: _run_session(session, inputs, OUTPUTS)


def _session(model: str | bytes) -> Any:
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run_session(session: Any, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Tensor]:
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    found = session.run(list(names), arrays)
    return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}


def torch_export_runner(path: str | Path) -> Runner:
    """Run what ``torch.export`` saved; gives :data:`OUTPUTS`."""
    program = torch.export.load(str(path)).module()

    @torch.no_grad()
    def run(inputs: Tensors) -> dict[str, Tensor]:
        return program(*inputs.values())

    return run


@torch.no_grad()
def compare(reference: DetectorProgram, inputs: Tensors, found: Tensors) -> Comparison:
    """How far a file's outputs are from PyTorch's.

    Args:
        reference: the program in float32, run step by step.
        inputs: of both, by name.
        found: :data:`OUTPUTS` of the file.
    """
    chosen = reference(**inputs)
    expected = reference(**inputs, pixels=found["pixels"])
    likelihood = (expected["likelihood"], chosen["likelihood"], found["likelihood"])
    ranked = [values.sigmoid() for values in likelihood]
    token_map = inputs.get("token_map")
    if token_map is None:
        token_map = reference.get_buffer("token_map").repeat(len(found["boxes"]), 1, 1)
    answer = reference.answer(found["logits"], found["query_boxes"], token_map)
    return Comparison(
        choice=max(_distance(ranked[0], ranked[1]), _distance(ranked[0], ranked[2])),
        scores=_distance(expected["logits"].sigmoid(), found["logits"].sigmoid()),
        boxes=_distance(expected["query_boxes"], found["query_boxes"]),
        detections=_distance_of_detections(answer, found),
    )


def _distance(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    difference = (one - other).abs()
    return float("inf") if difference.isnan().any() else float(difference.max())


def _distance_of_detections(answer: tuple[Tensor, Tensor, Tensor], found: Tensors) -> float:
    """Largest difference between sets of detections; equal scores have no order."""
    boxes, scores, labels = answer
    if scores.shape != found["scores"].shape:
        return float("inf")
    rows = torch.cat([boxes, scores[..., None], labels[..., None].float()], -1)
    others = torch.cat(
        [found["boxes"], found["scores"][..., None], found["labels"][..., None].float()], -1
    )
    nearest = (rows[:, :, None] - others[:, None]).abs().amax(-1).amin(-1)  # [B, N]
    # Which of those with the last score are in is a matter of rounding.
    nearest = nearest.nan_to_num(nan=float("inf"))
    nearest = nearest.masked_fill(scores <= scores[:, -1:] + TOLERANCE, 0.0)
    return max(float(nearest.max()), _distance(scores, found["scores"]))


def seconds(run: Callable[[], object], runs: int) -> float:
    """Median time of a run after one that does not count."""
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
