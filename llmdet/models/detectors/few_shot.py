"""Learning a class from a few images: its offset alone, by the detector's grounding losses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmdet.errors import ConfigError, DataError
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.heads.matching import Targets
from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.boxes import axes_scale, xyxy_to_cxcywh
from llmdet.prompts.types import Classes, TokenizedPrompt

_MOST_OTHERS = 8  # classes beside the new one in a prompt
_ALONE = 0.3  # of the prompts, which name the new class alone


@dataclass(frozen=True)
class LearningSettings:
    """How a class is learned.

    Attributes:
        steps: of the optimizer.
        views_per_step: images, or changed copies of them, in one step.
        lr: step size, as a part of the size of a text feature (root mean square).
        seed: of the order of views and of the classes beside the new one.
    """

    steps: int = 80
    views_per_step: int = 2
    lr: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "views_per_step"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}: it is a whole number from 1.")
        if not isinstance(self.lr, (int, float)) or not 0 < self.lr < math.inf:
            raise ConfigError(f"lr is {self.lr!r}: it is a number above 0.")


@dataclass(frozen=True)
class ExampleView:
    """An image, or a changed copy of it, and where the class is in it."""

    pyramid: FeaturePyramid  # of one image
    boxes: Tensor  # [N, 4] float32 xyxy in pixels of the input; N may be 0
    size: tuple[int, int]  # (height, width) of the input in pixels, without padding


def learn_class(
    model: GroundingDINO,
    name: str,
    views: Sequence[ExampleView],
    others: Sequence[str] = (),
    settings: LearningSettings = LearningSettings(),
    start: Tensor | None = None,
) -> list[float]:
    """Learn what a class looks like; nothing else of the model changes.

    The offset of its tokens follows the gradient of the grounding losses (classification, L1 and
    GIoU of all decoder layers and of the proposals) through decoder and encoder.

    The class is asked for alone and among other classes. Whatever is not in its boxes, objects of
    other classes too, counts as background, for its tokens alone: those of the others are not
    judged, since nobody said where they are.

    Args:
        model: in eval mode.
        name: of the class, learned before or not.
        views: at least one with a box.
        others: names that may stand beside the class in a prompt.
        settings: see :class:`LearningSettings`.
        start: offset [C] to begin with; None: zero.

    Returns:
        The loss of each step.

    Raises:
        DataError: no view has a box.
    """
    if not any(len(view.boxes) for view in views):
        raise DataError(f"The examples of {name!r} have no box: at least one image shows it.")
    learned = model.learned_classes
    before = learned[name].detach().clone() if name in learned else None
    begin = torch.zeros(learned.dims) if start is None else start
    offset = learned.put(name, begin.to(model.level_embed))
    try:
        with _only(model, offset), torch.enable_grad():
            return _descend(model, name, views, others, settings, offset)
    except BaseException:  # an interrupted class is as it was
        learned.remove(name)
        if before is not None:
            learned.put(name, before)
        raise


def text_features(model: GroundingDINO, name: str) -> Tensor:
    """What the words of a name enter the encoder as: [k, C], one row a token."""
    prompt = model.language_model.prompts(Classes((name,)))[0]
    with torch.no_grad():
        words = model.text_feat_map(model.language_model([prompt]).embedded[0])
    return words[torch.from_numpy(np.flatnonzero(prompt.token_map[0])).to(words.device)]


def _descend(
    model: GroundingDINO,
    name: str,
    views: Sequence[ExampleView],
    others: Sequence[str],
    settings: LearningSettings,
    offset: torch.nn.Parameter,
) -> list[float]:
    rng = np.random.default_rng(settings.seed)
    size = text_features(model, name).float().square().mean().sqrt().item()
    optimizer = torch.optim.Adam([offset], betas=(0.9, 0.99))
    turns = _in_turn(rng, len(views))
    losses = []
    for step in range(settings.steps):
        rate = settings.lr * size * _share_of_rate(step, settings.steps)
        optimizer.param_groups[0]["lr"] = rate
        total = torch.zeros((), device=offset.device)
        for _ in range(settings.views_per_step):
            prompt = _ask_beside(model, name, others, rng)
            loss = class_loss(model, name, prompt, views[next(turns)]) / settings.views_per_step
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return torch.stack(losses).tolist()  # one transfer for all steps


def class_loss(
    model: GroundingDINO, name: str, prompt: TokenizedPrompt, view: ExampleView
) -> Tensor:
    """The detector's loss of one view, for the tokens of a class that ``prompt`` names alone."""
    device = view.pyramid.feat.device
    with model.test_cfg.arithmetic(device):
        with torch.no_grad():  # the text encoder remembers what it has read
            text = model.language_model([prompt])
            text = dataclasses.replace(text, embedded=model.text_feat_map(text.embedded))
        encoded = model.encode(view.pyramid, model.learned_classes(text, [prompt]))
        proposals = model.propose(encoded)
        decoded = model.decode(encoded, proposals)
        own = torch.zeros_like(text.token_mask)
        tokens = torch.from_numpy(prompt.token_map[prompt.entities.index(name)])
        own[0, : len(tokens)] = tokens.to(device)
        judged = dataclasses.replace(encoded.text, token_mask=own)
        predictions = model.bbox_head(decoded, judged)
    seen = dataclasses.replace(
        proposals, logits=proposals.logits.masked_fill(~own[:, None], float("-inf"))
    )
    target = _target(view, own[0])
    losses, _ = model.bbox_head.loss(predictions, seen, None, [target])
    return torch.stack([value for key, value in losses.items() if "loss" in key]).sum()


def _target(view: ExampleView, own: Tensor) -> Targets:
    height, width = view.size
    corners = view.boxes.to(own.device) / axes_scale(width, height, view.boxes.to(own.device))
    return Targets(
        boxes=xyxy_to_cxcywh(corners),
        corners=corners,
        positive_map=own.float().expand(len(corners), -1),
        size=view.size,
    )


def _ask_beside(
    model: GroundingDINO, name: str, others: Sequence[str], rng: np.random.Generator
) -> TokenizedPrompt:
    """A prompt of the class, alone or somewhere among some others, of one chunk."""
    count = 0 if rng.random() < _ALONE else int(rng.integers(0, _MOST_OTHERS + 1))
    chosen = [others[i] for i in rng.permutation(len(others))[:count]]
    chosen.insert(int(rng.integers(len(chosen) + 1)), name)
    chunks = model.language_model.prompts(Classes(tuple(chosen)))
    return next(chunk for chunk in chunks if name in chunk.entities)


def _in_turn(rng: np.random.Generator, count: int) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()


def _share_of_rate(step: int, steps: int) -> float:
    """Cosine to zero."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


@contextmanager
def _only(model: GroundingDINO, parameter: torch.nn.Parameter) -> Iterator[None]:
    """Let nothing but one parameter have a gradient."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for other, _ in before:
            other.requires_grad_(other is parameter)
        yield
    finally:
        for other, needed in before:
            other.requires_grad_(needed)
        parameter.grad = None
