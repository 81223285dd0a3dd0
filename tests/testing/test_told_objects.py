"""Lists that say what objects are, which a language model reads before it sees any."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.masks import MaskedObjects
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.datasets.toy.scene import sample_scene
from llmdet.datasets.toy.vocabulary import ALL_KINDS, SEEN
from llmdet.models.regions.base import batch_regions
from llmdet.models.regions.connector import VisualConnector
from llmdet.models.regions.object_queries import ObjectQueries
from llmdet.models.vision.detector_memory import DetectorOutput
from llmdet.models.vision.views import Frame
from llmdet.registry import MODELS
from llmdet.testing.region_models import tiny_region_lmm
from llmdet.testing.search_lesson import Searches
from llmdet.testing.told_objects import (
    NamedObjects,
    NumbersAndNames,
    ToldObjects,
    begin_connector,
    draw_objects,
    draw_scenes,
    read_lists,
)


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


def test_scenes_of_lists_show_what_training_shows_and_are_the_same_for_a_seed():
    scenes = draw_scenes(40, seed=1)
    assert {item.kind for each in scenes for item in each.items} <= set(SEEN)
    boxes = [[item.box for item in each.items] for each in scenes]
    assert boxes == [[item.box for item in each.items] for each in draw_scenes(40, seed=1)]
    assert boxes != [[item.box for item in each.items] for each in draw_scenes(40, seed=2)]


def test_lists_are_no_longer_than_asked_and_have_every_object_in_every_place():
    shown = next(scene(number) for number in range(20) if len(scene(number).items) > 2)
    rng = np.random.default_rng(0)
    drawn = [draw_objects(shown, 2, rng).items for _ in range(60)]
    assert {len(items) for items in drawn} == {1, 2}
    assert {items[0] for items in drawn} == set(shown.items)
    assert {len(draw_objects(shown, 2, rng, shortest=2).items) for _ in range(20)} == {2}


def test_lists_of_numbers_and_names_grow_and_stand_in_front_of_the_questions():
    rng = np.random.default_rng(0)
    lesson = NumbersAndNames([scene(number) for number in range(60)], 10)
    longest = []
    for step in (1, 10):
        lists = [list_ for _ in range(4) for list_ in lesson(step, rng)]
        longest.append(max(len(objects.items) for objects, _ in lists))
        for objects, row in lists:
            read = read_row({**row, "filename": "a.jpg"}, "here")
            slots = [s.index for s in read.conversation.slots if s.kind == "region"]
            assert slots[: len(objects.items)] == list(range(len(objects.items)))
    assert longest == [2, 6]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


def test_names_are_the_models_own_words_and_centres_tell_equal_ones_apart(qwen):
    lmm = MODELS.build(dict(type="LanguageModel", model=qwen, frozen=False, dtype="float32"))
    images = [MaskedObjects.of_scene(scene(number)) for number in range(20)]
    told = NamedObjects(lmm)
    tokens = told(images)
    distances = torch.cdist(tokens, tokens) + torch.eye(len(tokens))
    assert distances.min() > 1e-6
    first = told.centres[-1]
    torch.nn.init.zeros_(first.weight), torch.nn.init.zeros_(first.bias)
    embedding = lmm.causal_lm.get_input_embeddings().weight
    kind = images[0].kinds[0]
    ids = [
        token
        for word in (kind.colour, kind.shape)
        for form in (word, f" {word}")
        for token in lmm.tokenizer.encode(form)
    ]
    torch.testing.assert_close(told(images)[0], embedding[ids].sum(0))
    told(images).sum().backward()
    assert lmm.causal_lm.get_input_embeddings().weight.grad[ids].abs().min() > 0
    assert not any("word" in name or "embed" in name for name, _ in told.named_parameters())


@pytest.mark.parametrize("of", [NumbersAndNames, lambda scenes, steps: Searches(scenes, steps, 20)])
def test_reading_teaches_the_language_model_and_nothing_else(of, qwen, caplog):
    torch.manual_seed(0)
    output = dict(type="ObjectIndex", count=8)
    model = MODELS.build(tiny_region_lmm(qwen, output=output))
    hidden = model.lmm.hidden_size
    told = NamedObjects(model.lmm) if of is not NumbersAndNames else ToldObjects(hidden)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level("INFO", logger="llmdet.testing.told_objects"):
        lesson = of([scene(number) for number in range(20)], 50)
        read_lists(model, told, lesson, seed=0, noise=0.2)
    first, last = (float(record.message.rpartition(" ")[2]) for record in caplog.records)
    assert last < first
    changed = {n for n, value in model.state_dict().items() if not torch.equal(before[n], value)}
    assert changed
    assert all(name.startswith("lmm.") for name in changed)


class Seen:
    """Object queries of which each is a mixture of its object's kind, at its box."""

    mixed = torch.randn(len(ALL_KINDS), 24, generator=torch.Generator().manual_seed(0))

    @classmethod
    def of(cls, objects):
        height, width = objects.size
        kinds = torch.tensor([ALL_KINDS.index(kind) for kind in objects.kinds])
        corners = torch.tensor([item.box for item in objects.items])
        x1, y1, x2, y2 = (corners / torch.tensor([width, height, width, height])).T
        boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        spare = 10 - len(kinds)  # as many of every image
        return DetectorOutput(
            torch.zeros(1, 0, 24),
            (),
            torch.zeros(1, 0, 2),
            Frame(torch.ones(1, 2), torch.zeros(1, 2), (objects.size,), (objects.size,), (1, 1)),
            None,
            F.pad(F.one_hot(kinds, len(ALL_KINDS)).float() @ cls.mixed, (0, 0, 0, spare))[None],
            F.pad(boxes, (0, 0, 0, spare))[None],
            torch.zeros(1, 10),
        )


def test_a_connector_begins_with_the_tokens_that_were_told():
    torch.manual_seed(0)
    told, connector = ToldObjects(32), VisualConnector(24, 32)
    filler = SimpleNamespace(encoders={"region": ObjectQueries()}, connectors={"region": connector})
    shown = [MaskedObjects.of_scene(scene(number)) for number in range(60)]
    images = [(Seen.of(objects), objects) for objects in shown]
    before = {name: value.clone() for name, value in told.state_dict().items()}
    begin_connector(SimpleNamespace(filler=filler), told, images, steps=500, seed=0)
    with torch.no_grad():
        expected = [told([objects]) for objects in shown]
        found = [ObjectQueries()(seen, _regions(objects)) for seen, objects in images]
        made = [connector(each.features, each.boxes)[:, 0] for each in found]
    missed = torch.cat(made) - torch.cat(expected)
    assert missed.square().mean() < 0.2 * torch.cat(expected).var()
    assert all(torch.equal(before[name], value) for name, value in told.state_dict().items())


def _regions(objects):
    boxes = torch.tensor([item.box for item in objects.items])
    return batch_regions([len(boxes)], boxes.device, boxes=boxes)
