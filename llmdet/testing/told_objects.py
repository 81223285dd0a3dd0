"""Text before pictures: a language model that is told what objects are before it sees them.

Which number an object of a list has, and which object a number means, is looked up in what was
said before. A trained language model can do that; one of random weights does not come to learn it
while what it has to look up are features that say nothing to it yet. So each object is first one
token that says its colour, shape and place, and lists begin short. A connector can then begin with
features of objects that stand for the same tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from llmdet.datasets.toy.scene import Scene, sample_scene
from llmdet.datasets.toy.vocabulary import COLOURS, SEEN, SHAPES
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.views import TowerOutput
from llmdet.prompts.conversation import Conversation
from llmdet.testing.kept import join
from llmdet.testing.kept_training import learning_rate

logger = logging.getLogger(__name__)

_KINDS = (*COLOURS, *SHAPES)
_WORDS = (*_KINDS, *(place for row in PLACES for place in row))
_SPREAD = 0.375  # of the second map's weights: tokens as large as those of features
_CENTRE, _CENTRE_SPREAD = 64, 0.1  # features of a centre, and their map's weights
_RATE = 1e-3
_LOGGED = 25  # steps
_CONNECTOR_RATE = 2e-3
_CONNECTOR_BATCH = 256  # objects
_LOOKED_AT = 50  # images at once
LISTS = 16  # of a step

#: A list and a row of docs/data.md with questions about it.
ListQuestions = tuple[MaskedObjects, Mapping[str, Any]]


class Teller(Protocol):
    """Gives objects their tokens."""

    def __call__(self, images: Sequence[MaskedObjects]) -> Tensor:
        """Tokens [n, H] of the objects of all images."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What it learns."""


class ToldObjects(nn.Module):
    """What objects are and in which ninth of the image, as tokens that two maps make.

    Args:
        hidden_size: width H of the language model.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        first, last = nn.Linear(len(_WORDS), hidden_size), nn.Linear(hidden_size, hidden_size)
        nn.init.normal_(last.weight, 0, _SPREAD)
        self.maps = nn.Sequential(first, nn.GELU(), last)

    def forward(self, images: Sequence[MaskedObjects]) -> Tensor:
        """See :class:`Teller`."""
        said = [
            [kind.colour, kind.shape, each.place(number).lower()]
            for each in images
            for number, kind in enumerate(each.kinds)
        ]
        places = torch.tensor([[_WORDS.index(word) for word in words] for words in said])
        return self.maps(torch.zeros(len(said), len(_WORDS)).scatter_(1, places, 1.0))


class NamedObjects(nn.Module):
    """Objects as the sum of a language model's words for colour and shape, and of their centres.

    Heads that look for what is like a word find objects of it from the first step.

    Args:
        lmm: the language model; its words are no part of this module.
    """

    def __init__(self, lmm: LanguageModel) -> None:
        super().__init__()
        self._words = (lmm.causal_lm.get_input_embeddings(),)
        # At the beginning of a text and within it words are other tokens.
        ids = [[lmm.tokenizer.encode(form) for form in (word, f" {word}")] for word in _KINDS]
        self._tokens = torch.tensor([token for forms in ids for form in forms for token in form])
        counts = [sum(map(len, forms)) for forms in ids]
        self._word = torch.arange(len(_KINDS)).repeat_interleave(torch.tensor(counts))
        first, last = nn.Linear(2, _CENTRE), nn.Linear(_CENTRE, lmm.hidden_size)
        nn.init.normal_(last.weight, 0, _CENTRE_SPREAD)
        self.centres = nn.Sequential(first, nn.GELU(), last)

    def forward(self, images: Sequence[MaskedObjects]) -> Tensor:
        """See :class:`Teller`."""
        rows = self._words[0](self._tokens)
        words = rows.new_zeros(len(_KINDS), rows.shape[1]).index_add(0, self._word, rows)
        kinds = [kind for each in images for kind in each.kinds]
        said = [[_KINDS.index(kind.colour), _KINDS.index(kind.shape)] for kind in kinds]
        centres = torch.cat([_centres(each) for each in images])
        return words[torch.tensor(said)].sum(1) + self.centres(centres)


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


def draw_scenes(count: int, seed: int) -> list[Scene]:
    """So many scenes of combinations that training shows; that many pictures would take long."""
    rng, weights = np.random.default_rng(seed), np.full(len(SEEN), 1 / len(SEEN))
    return [sample_scene(rng, SEEN, weights) for _ in range(count)]


def draw_objects(
    scene: Scene, longest: int, rng: np.random.Generator, shortest: int = 1
) -> MaskedObjects:
    """At least and at most so many objects of a scene, in any order; all where they are fewer."""
    objects = MaskedObjects.of_scene(scene).shuffled(rng)
    most = min(longest, len(objects.items))
    count = shortest + int(rng.integers(max(1, most + 1 - shortest)))
    return MaskedObjects(objects.items[:count], objects.size)


def read_lists(
    model: Any,
    told: Teller,
    lesson: Lesson,
    seed: int,
    noise: float = 0.0,
    level: float = 0.0,
) -> None:
    """Train the language model of a ``RegionLMM``, in place, to look up what it was told.

    Tokens of the image say nothing.

    Args:
        model: with ``ObjectIndex`` among its outputs; of its parts only ``lmm`` changes.
        told: gives objects their tokens, and learns too.
        lesson: what is asked, and for how many steps.
        seed: of lists and questions.
        noise: of tokens, in their own spread: a connector never makes them exactly.
        level: share of the steps before the learning rate falls.
    """
    rng = np.random.default_rng(seed)
    lmm, steps = model.lmm, lesson.steps
    weights = [*(w for w in lmm.parameters() if w.requires_grad), *told.parameters()]
    optimizer = torch.optim.AdamW(weights, _RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = LambdaLR(optimizer, partial(learning_rate, steps=steps, level=level))
    lmm.train()
    for step in range(1, steps + 1):
        loss = _loss(model, told, lesson(step, rng), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % _LOGGED == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    lmm.eval()


def _loss(model: Any, told: Teller, questions: Sequence[ListQuestions], noise: float) -> Tensor:
    tokens = [model.conversations(_listed(model, *each)) for each in questions]
    dialogue = collate_dialogue(tokens, model.lmm.pad_id, model.lmm.device)
    silent = torch.zeros(len(dialogue.slots["image"]), model.lmm.hidden_size)
    objects = told([objects for objects, _ in questions])
    heard = objects + noise * objects.detach().std() * torch.randn_like(objects)
    features = {"image": silent, "region": heard}
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
    told: Teller,
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
