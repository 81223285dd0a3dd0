"""Text before pictures: a language model that is told what objects are before it sees them.

Which number an object of a list has, and which object a number means, is looked up in what was
said before. A trained language model can do that; one of random weights does not come to learn it
while what it has to look up are features that say nothing to it yet. So each object is first one
token that says its colour, shape and place, and lists begin short.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.captions import PLACES
from llmdet.datasets.toy.masks import MaskedObjects, listed_row
from llmdet.datasets.toy.scene import Scene
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.testing.kept_training import learning_rate

logger = logging.getLogger(__name__)

_WORDS = (*COLOURS, *SHAPES, *(place for row in PLACES for place in row))
_SPREAD = 0.375  # of the second map's weights: tokens as large as those of features
_RATE = 1e-3
_BATCH = 16  # lists
_LOGGED = 25  # steps


class ToldObjects(nn.Module):
    """What objects are, as tokens.

    Args:
        hidden_size: width H of the language model.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        first, last = nn.Linear(len(_WORDS), hidden_size), nn.Linear(hidden_size, hidden_size)
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
        return self.maps(torch.zeros(len(said), len(_WORDS)).scatter_(1, places, 1.0))


def read_lists(model: Any, scenes: Sequence[Scene], steps: int, seed: int) -> None:
    """Train the language model of a ``RegionLMM``, in place, to look up what it was told.

    It is asked what and where the object of a number is, and which number an object has. Tokens of
    the image say nothing.

    Args:
        model: with ``ObjectIndex`` among its outputs; of its parts only ``lmm`` changes.
        scenes: whose objects are told.
        steps: of training; the longest lists grow from two objects to all.
        seed: of scenes, their order and questions.
    """
    rng = np.random.default_rng(seed)
    lmm, told = model.lmm, ToldObjects(model.lmm.hidden_size)
    weights = [*(w for w in lmm.parameters() if w.requires_grad), *told.parameters()]
    optimizer = torch.optim.AdamW(weights, _RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = LambdaLR(optimizer, partial(learning_rate, steps=steps))
    lmm.train()
    for step in range(1, steps + 1):
        longest = 2 + 6 * step // steps
        drawn = [scenes[n] for n in rng.integers(len(scenes), size=_BATCH)]
        lists = [_some(scene, longest, rng) for scene in drawn]
        loss = _loss(model, told, lists, [listed_row(each, rng) for each in lists])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % _LOGGED == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    lmm.eval()


def _some(scene: Scene, longest: int, rng: np.random.Generator) -> MaskedObjects:
    """At most so many objects of a scene, in any order."""
    objects = MaskedObjects.of_scene(scene).shuffled(rng)
    count = 1 + int(rng.integers(min(longest, len(objects.items))))
    return MaskedObjects(objects.items[:count], objects.size)


def _loss(
    model: Any,
    told: ToldObjects,
    lists: Sequence[MaskedObjects],
    rows: Sequence[Mapping[str, Any]],
) -> Tensor:
    said = [read_row({**row, "filename": ""}, "a list").conversation for row in rows]
    tokens = [model.conversations(each) for each in said]
    dialogue = collate_dialogue(tokens, model.lmm.pad_id, model.lmm.device)
    silent = torch.zeros(len(dialogue.slots["image"]), model.lmm.hidden_size)
    features = {"image": silent, "region": told(lists)}
    marked = model.output.mark_features(features, dialogue, model.lmm)
    return model.lmm.loss(dialogue, marked)
