"""Lists that say what objects are, which a language model reads before it sees any."""

from __future__ import annotations

import numpy as np

from llmdet.datasets.toy.masks import MaskedObjects
from llmdet.datasets.toy.scene import sample_scene
from llmdet.datasets.toy.vocabulary import SEEN
from llmdet.testing import told_objects
from llmdet.testing.told_objects import ToldObjects


def scene(number):
    weights = np.full(len(SEEN), 1 / len(SEEN))
    return sample_scene(np.random.default_rng(number), SEEN, weights)


def test_tokens_say_kind_and_place_and_nothing_else():
    images = [MaskedObjects.of_scene(scene(number)) for number in range(20)]
    tokens = ToldObjects(16)(images)
    said = [
        (kind, image.place(number)) for image in images for number, kind in enumerate(image.kinds)
    ]
    assert len(tokens) == len(said) > len(set(said))
    alike = (tokens[:, None] - tokens).abs().amax(-1) < 1e-6
    assert alike.tolist() == [[one == other for other in said] for one in said]


def test_lists_are_no_longer_than_asked_and_have_every_object_in_every_place():
    shown = next(scene(number) for number in range(20) if len(scene(number).items) > 2)
    rng = np.random.default_rng(0)
    drawn = [told_objects._some(shown, 2, rng).items for _ in range(60)]
    assert {len(items) for items in drawn} == {1, 2}
    assert {items[0] for items in drawn} == set(shown.items)
