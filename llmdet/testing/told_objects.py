"""Text before pictures: a language model that is told what objects are before it sees them.

Which number an object of a list has, and which object a number means, is looked up in what was
said before. A trained language model can do that; one of random weights does not come to learn it
while what it has to look up are features that say nothing to it yet. So each object is first one
token that says its colour, shape and place, and lists begin short. A connector can then begin with
features of objects that stand for the same tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.captions import PLACES
from llmdet.datasets.toy.masks import MaskedObjects, listed_row
from llmdet.datasets.toy.scene import Scene
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.views import TowerOutput
from llmdet.prompts.conversation import Conversation
from llmdet.testing.kept import join
from llmdet.testing.kept_training import learning_rate

logger = logging.getLogger(__name__)

_WORDS = (*COLOURS, *SHAPES, *(place for row in PLACES for place in row))
_SPREAD = 0.375  # of the second map's weights: tokens as large as those of features
_RATE = 1e-3
_LOGGED = 25  # steps
_CONNECTOR_RATE = 2e-3
_CONNECTOR_BATCH = 256  # objects
_LOOKED_AT = 50  # images at once
LISTS = 16  # of a step

#: A list and a row of docs/data.md with questions about it.
ListQuestions = tuple[MaskedObjects, Mapping[str, Any]]


class ToldObjects(nn.Module):
    """What objects are, as tokens.

    Args:
        hidden_size: width H of the language model.
        centres: whether tokens also say where the centres of objects are.
    """

    def __init__(self, hidden_size: int, centres: bool = False) -> None:
        super().__init__()
        self.centres = centres
        first = nn.Linear(len(_WORDS) + 2 * centres, hidden_size)
        last = nn.Linear(hidden_size, hidden_size)
        nn.init.normal_(last.weight, 0, _SPREAD)
        self.maps = nn.Sequential(first, nn.GELU(), last)

    def forward(self, images: Sequence[MaskedObjects]) -> Tensor:
        """Tokens [n, H] of the objects of all images."""
        said = [
            [kind.colour, kind.shape, each.place(number).lower()]
            for each in images
            for number, kind in enumerate(each.kinds)
        ]
        places = torch.tensor([[_WORDS.index(word) for word in words] for words in said])
        told = torch.zeros(len(said), len(_WORDS)).scatter_(1, places, 1.0)
        if self.centres:
            told = torch.cat([told, torch.cat([_centres(each) for each in images])], 1)
        return self.maps(told)


def _centres(objects: MaskedObjects) -> Tensor:
    """Centres [n, 2] of objects, x and y in -1..1 of the image."""
    height, width = objects.size
    x1, y1, x2, y2 = torch.tensor([item.box for item in objects.items]).float().T
    return torch.stack([(x1 + x2) / width - 1, (y1 + y2) / height - 1], 1)


class Lesson(Protocol):
    """What is asked about lists."""

    @property
    def steps(self) -> int:
        """Of training."""

    def __call__(self, step: int, rng: np.random.Generator) -> list[ListQuestions]:
        """The lists of a step of training, counted from 1."""


@dataclass(frozen=True)
class NumbersAndNames:
    """What and where the object of a number is, and which number an object has.

    The longest lists grow from two objects to all.

    Attributes:
        scenes: whose objects are told.
        steps: of training.
    """

    scenes: Sequence[Scene]
    steps: int

    def __call__(self, step: int, rng: np.random.Generator) -> list[ListQuestions]:
        """See :class:`Lesson`."""
        longest = 2 + 6 * step // self.steps
        drawn = rng.integers(len(self.scenes), size=LISTS)
        lists = [draw_objects(self.scenes[number], longest, rng) for number in drawn]
        return [(each, listed_row(each, rng)) for each in lists]


def draw_objects(
    scene: Scene, longest: int, rng: np.random.Generator, shortest: int = 1
) -> MaskedObjects:
    """At least and at most so many objects of a scene, in any order; all where they are fewer."""
    objects = MaskedObjects.of_scene(scene).shuffled(rng)
    most = min(longest, len(objects.items))
    count = shortest + int(rng.integers(max(1, most + 1 - shortest)))
    return MaskedObjects(objects.items[:count], objects.size)


def read_lists(model: Any, told: ToldObjects, lesson: Lesson, seed: int) -> None:
    """Train the language model of a ``RegionLMM``, in place, to look up what it was told.

    Tokens of the image say nothing.

    Args:
        model: with ``ObjectIndex`` among its outputs; of its parts only ``lmm`` changes.
        told: gives objects their tokens, and learns too.
        lesson: what is asked, and for how many steps.
        seed: of lists and questions.
    """
    rng = np.random.default_rng(seed)
    lmm, steps = model.lmm, lesson.steps
    weights = [*(w for w in lmm.parameters() if w.requires_grad), *told.parameters()]
    optimizer = torch.optim.AdamW(weights, _RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = LambdaLR(optimizer, partial(learning_rate, steps=steps))
    lmm.train()
    for step in range(1, steps + 1):
        loss = _loss(model, told, lesson(step, rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % _LOGGED == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    lmm.eval()


def _loss(model: Any, told: ToldObjects, questions: Sequence[ListQuestions]) -> Tensor:
    tokens = [model.conversations(_listed(model, *each)) for each in questions]
    dialogue = collate_dialogue(tokens, model.lmm.pad_id, model.lmm.device)
    silent = torch.zeros(len(dialogue.slots["image"]), model.lmm.hidden_size)
    features = {"image": silent, "region": told([objects for objects, _ in questions])}
    marked = model.output.mark_features(features, dialogue, model.lmm)
    return model.lmm.loss(dialogue, marked)


def _listed(model: Any, objects: MaskedObjects, row: Mapping[str, Any]) -> Conversation:
    """The conversation of a row, with the objects in front where it does not list them."""
    said = read_row({**row, "filename": ""}, "a list").conversation
    assert said is not None
    listed = "region" in said.kinds
    return said if listed else model.output.introduce(said, len(objects.items))


def begin_connector(
    model: Any,
    told: ToldObjects,
    images: Sequence[tuple[TowerOutput, MaskedObjects]],
    steps: int,
    seed: int,
) -> None:
    """Train the connector of regions, in place, to make the tokens that objects were told by.

    Args:
        model: a ``RegionLMM`` whose towers are frozen.
        told: trained by :func:`read_lists`.
        images: what the tower of regions saw of each, and the objects that it shows.
        steps: of training.
        seed: of which objects a step has.
    """
    parts = [images[n : n + _LOOKED_AT] for n in range(0, len(images), _LOOKED_AT)]
    encoder, connector = model.filler.encoders["region"], model.filler.connectors["region"]
    with torch.no_grad():
        encoded = [_encode(encoder, part) for part in parts]
        features, boxes = (torch.cat(each) for each in zip(*encoded, strict=True))
        tokens = told([shown for _, shown in images])
    optimizer = torch.optim.AdamW(connector.parameters(), _CONNECTOR_RATE)
    schedule = LambdaLR(optimizer, partial(learning_rate, steps=steps))
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        drawn = torch.randint(len(tokens), (_CONNECTOR_BATCH,), generator=source)
        loss = F.mse_loss(connector(features[drawn], boxes[drawn]), tokens[drawn]) / tokens.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        missed = F.mse_loss(connector(features, boxes), tokens) / tokens.var()
    logger.info("connector: %.3f of the variance of tokens is missed", missed.item())


def _encode(
    encoder: Any, images: Sequence[tuple[TowerOutput, MaskedObjects]]
) -> tuple[Tensor, Tensor]:
    """Features [n, C] and boxes [n, 4] of the objects of all images."""
    corners = torch.tensor([item.box for _, shown in images for item in shown.items])
    counts = [len(shown.items) for _, shown in images]
    regions = batch_regions(counts, corners.device, boxes=corners.float())
    encoded = encoder(join([seen for seen, _ in images]), regions)
    return encoded.features[:, 0], encoded.boxes[:, 0]
