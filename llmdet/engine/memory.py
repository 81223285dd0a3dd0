"""What a training step takes on each GPU, calculated without one.

The step runs on fake tensors, which have sizes and no numbers: every tensor that an operator of
PyTorch makes is counted while it lives, in the forward and in the backward pass. Kernels of a GPU
keep less than these operators do (deformable attention, the caption loss): the sum is a bound.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmdet.engine.strategies.fsdp2 import units
from llmdet.engine.strategies.zero import BUCKET
from llmdet.models.language.causal_lm import build_causal_lm
from llmdet.models.structures import Matches
from llmdet.prompts.conversation import ask_of_image, ask_of_region
from llmdet.registry import MODELS

STRATEGIES = ("ddp", "fsdp2", "zero-2")

#: Numbers of AdamW beside each weight.
_MOMENTS = 2


@dataclass(frozen=True)
class Workload:
    """What a process trains on in a step."""

    images: int
    height: int  # in pixels, of every image
    width: int
    boxes: int  # of every image
    classes: int  # names in every prompt
    phrases: int  # region captions of every image


@dataclass(frozen=True)
class Budget:
    """Bytes on one GPU at the peak of a training step."""

    weights: int
    optimizer: int
    gradients: int  # at the peak
    activations: int  # at the peak: what is kept for the backward pass, and what is being computed
    exchange: int  # weights that are gathered, and their gradients before they are sent

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class StepTrace:
    """Sizes of one process's step with a whole model, in bytes."""

    weights: int
    trainable: int  # gradients, when all are there
    moments: int
    peak: int  # of what lives beside weights and moments
    gradients: int  # those that are there at the peak
    unit: int  # weights of the largest part that FSDP2 gathers by itself
    rest: int  # weights of what is gathered for the whole step
    rest_gradients: int

    def on(self, strategy: str, gpus: int) -> Budget:
        """The budget of each of ``gpus``; ``strategy`` is one of :data:`STRATEGIES`."""
        kept = self.peak - self.gradients
        if gpus == 1:
            return Budget(self.weights, self.moments, self.gradients, kept, 0)
        if strategy == "ddp":  # gradients lie in buckets that are always there
            return Budget(self.weights, self.moments, self.trainable, kept, 0)
        if strategy == "zero-2":  # DeepSpeed's optimizer has a copy of its part of the weights
            states = (self.moments + self.trainable) // gpus
            return Budget(self.weights, states, self.trainable, kept, BUCKET)
        # The part that runs and the next one, beside what stays gathered.
        gathered = self.rest + 2 * self.unit + self.rest_gradients
        return Budget(
            self.weights // gpus, self.moments // gpus, self.trainable // gpus, kept, gathered
        )


def build_without_numbers(config: Mapping[str, Any]) -> nn.Module:
    """The model of a config, whose language model takes no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def build(model: Any, *, pretrained: bool, dtype: torch.dtype) -> Any:
        with mode:
            return build_causal_lm(model, pretrained=False, dtype=dtype)

    with patch("llmdet.models.language.language_model.build_causal_lm", build):
        model = MODELS.build(config)
    return _without_numbers(model, mode)


def trace_step(model: Any, work: Workload, *, amp: torch.dtype | None = None) -> StepTrace:
    """Sizes of a step of a model of :func:`build_without_numbers`.

    Args:
        model: LLMDet or a plain detector.
        work: what it trains on.
        amp: dtype of mixed precision.
    """
    parameters = list(model.parameters())
    mode = next(p.fake_mode for p in parameters)  # type: ignore[attr-defined]
    samples = [make_sample(work, model) for _ in range(work.images)]
    model.train()
    autocast = nullcontext() if amp is None else torch.autocast("cpu", dtype=amp)
    with ExitStack() as stack:
        for change in _without_reading():
            stack.enter_context(change)
        stack.enter_context(mode)
        images = torch.empty(work.images, 3, work.height, work.width)
        live = stack.enter_context(LiveBytes(parameters))
        with autocast:
            losses = model(images, samples, mode="loss")
        total, _ = model.parse_losses(losses)
        total.backward()
    return _sizes(model, live)


def measure_step(model: Any, work: Workload) -> int:
    """Most bytes that a step of a model with numbers has from PyTorch's allocator, on a CPU.

    Weights and moments of the optimizer, which are there before it, are not counted.
    """
    samples = [make_sample(work, model) for _ in range(work.images)]
    images = torch.rand(work.images, 3, work.height, work.width)
    model.train()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        total, _ = model.parse_losses(model(images, samples, mode="loss"))
        total.backward()
    results: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = [event for event in results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def make_sample(work: Workload, model: Any) -> DetDataSample:
    """A sample with boxes, names, phrases and the longest caption that is read."""
    text, spans = class_prompt(work.classes)
    talks = []
    if getattr(model, "image_captioner", None) is not None:
        talks.append(ask_of_image("word " * model.image_captioner.settings.max_length))
    if getattr(model, "region_captioner", None) is not None:
        phrase = "word " * model.region_captioner.settings.max_length
        talks += [ask_of_region(box, phrase) for box in range(min(work.phrases, work.boxes))]
    sample = DetDataSample(
        metainfo={
            "text": text,
            "tokens_positive": spans,
            "img_shape": (work.height, work.width),
            "ori_shape": (work.height, work.width),
            "batch_input_shape": (work.height, work.width),
            "scale_factor": (1.0, 1.0),
            "conversations": talks,
        }
    )
    corner = torch.rand(work.boxes, 2) * 20
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + 20], 1), labels=torch.arange(work.boxes) % work.classes
    )
    return sample


def class_prompt(classes: int) -> tuple[str, dict[int, list[list[int]]]]:
    """A prompt of so many names, and the characters of each name."""
    text = ""
    spans: dict[int, list[list[int]]] = {}
    for number in range(classes):
        name = f"thing {number}"
        spans[number] = [[len(text), len(text) + len(name)]]
        text += f"{name}. "
    return text, spans


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, while they live.

    Args:
        parameters: whose gradients are told apart at the peak.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self.parameters = parameters
        self.live = self.peak = self.gradients = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count what it made."""
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._forget, key, size)
        if self.live > self.peak:
            self.peak = self.live
            self.gradients = sum(bytes_of(p.grad) for p in self.parameters if p.grad is not None)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def bytes_of(tensor: Tensor) -> int:
    """Of its values."""
    return tensor.numel() * tensor.element_size()


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _sizes(model: nn.Module, live: LiveBytes) -> StepTrace:
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = [sum(map(bytes_of, unit.parameters())) for unit in units(model)]
    inside = {id(p) for unit in units(model) for p in unit.parameters()}
    weights = sum(map(bytes_of, model.parameters()))
    return StepTrace(
        weights=weights + sum(map(bytes_of, model.buffers())),
        trainable=sum(map(bytes_of, trained)),
        moments=_MOMENTS * sum(map(bytes_of, trained)),
        peak=live.peak,
        gradients=live.gradients,
        unit=max(parts, default=0),
        rest=weights - sum(parts),
        rest_gradients=sum(bytes_of(p) for p in trained if id(p) not in inside),
    )


def _without_numbers(model: nn.Module, mode: Any) -> nn.Module:
    """``model`` with fake parameters and buffers, in place; shared ones stay shared."""
    from torch._subclasses.fake_tensor import FakeTensor

    known: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Any:
        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in known:
            known[id(tensor)] = mode.from_tensor(tensor)
        return known[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    held[name] = fake(value)  # type: ignore[assignment]
    return model


def _without_reading() -> Iterator[Any]:
    """Changes of what asks tensors for their values; none of it takes memory that counts."""
    yield patch("llmdet.models.heads.matching.HungarianMatcher.__call__", _match_in_order)
    yield patch("llmdet.models.transformer.denoising._random_numbers", torch.Generator)


def _match_in_order(
    self: Any, logits: Sequence[Tensor], boxes: Sequence[Tensor], targets: Sequence[Any]
) -> list[Matches]:
    """Matches of as many boxes as the matcher would find."""
    with torch.no_grad():
        self.cost(torch.stack(list(logits), 1), torch.stack(list(boxes), 1), targets)
    index = tuple(torch.arange(min(len(t.boxes), logits[0].shape[1])) for t in targets)
    return [Matches(index, index) for _ in logits]
