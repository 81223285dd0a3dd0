"""Classes that a detector learns from examples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llmdet import Detector
from llmdet.apis import pretrained
from llmdet.apis.example_views import changed_copies
from llmdet.apis.learned_classes import example_views
from llmdet.errors import ConfigError, DataError
from llmdet.models.detectors.few_shot import class_loss
from llmdet.prompts import Classes

NAMES = ["red circle", "dog"]
#: Three examples become 18 views, two of which are seen in a step.
ROUND, STEPS = 9, 27
PART = "件 part"  # a word that the text encoder does not know


def scene(x: int, y: int) -> tuple[np.ndarray, list[list[int]]]:
    """A bright square on grey, and its box."""
    image = np.random.default_rng(x + y).integers(90, 110, (64, 96, 3)).astype(np.uint8)
    image[y : y + 20, x : x + 24] = (250, 40, 30)
    return image, [[x, y, x + 24, y + 20]]


@pytest.fixture(scope="module")
def taught_part(tiny, tmp_path_factory):
    """A detector that has learned a class, what came of that, and what it found before."""
    detector = Detector.from_pretrained(tiny.config, tiny.weights, device="cpu")
    weights = {key: value.clone() for key, value in detector.model.state_dict().items()}
    wanted = [p.requires_grad for p in detector.model.parameters()]
    before = detector.predict(scene(40, 30)[0], NAMES, threshold=0)
    learned = detector.add_class(
        PART, [scene(10, 8), scene(60, 40), (scene(0, 0)[0] // 2, [])], steps=STEPS, lr=0.3
    )
    assert [p.requires_grad for p in detector.model.parameters()][: len(wanted)] == wanted
    after = detector.model.state_dict()
    assert all(after[key].equal(value) for key, value in weights.items())
    return detector, learned, before


def loss_elsewhere(detector: Detector) -> float:
    """The loss of an image that nobody has shown."""
    image, boxes = scene(40, 30)
    view = next(example_views(detector._look, [(image, np.float32(boxes))], 0))
    prompt = detector.model.language_model.prompts(Classes((PART,)))[0]
    with torch.no_grad():
        return float(class_loss(detector.model, PART, prompt, view))


def test_learning_lowers_the_loss_of_its_images_and_of_others(taught_part, tiny, caplog):
    detector, learned, _ = taught_part
    fresh = Detector.from_pretrained(tiny.config, tiny.weights, device="cpu")
    assert (learned.name, learned.examples, learned.boxes) == (PART, 3, 2)
    assert len(learned.losses) == STEPS
    first, last = (np.mean(losses) for losses in (learned.losses[:ROUND], learned.losses[-ROUND:]))
    assert last < 0.95 * first
    assert loss_elsewhere(detector) < loss_elsewhere(fresh)
    assert not any("does not know" in record.message for record in caplog.records)


def test_other_classes_are_found_as_before_to_the_last_bit(taught_part):
    detector, _, before = taught_part
    after = detector.predict(scene(40, 30)[0], NAMES, threshold=0)
    assert np.array_equal(after.boxes, before.boxes)
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.labels, before.labels)


def test_a_learned_class_mixes_with_others_in_sessions_tiles_and_chunks(taught_part):
    detector, _, _ = taught_part
    image = scene(40, 30)[0]
    classes = ["dog", PART, "red circle"]
    found = detector.predict(image, classes, threshold=0)
    assert set(found.names) >= {PART}
    again = detector.set_image(image).predict(classes, threshold=0)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-6)
    tiled = detector.predict(image, classes, threshold=0, tiles=48)
    assert PART in tiled.names
    many = [*(f"kind {number}" for number in range(30)), PART.upper()]
    assert PART.upper() in detector.predict(image, many, threshold=0).names


def test_a_saved_detector_keeps_its_learned_classes(taught_part, tmp_path):
    detector, _, _ = taught_part
    detector.save_pretrained(tmp_path / "saved")
    loaded = Detector.from_pretrained(tmp_path / "saved", device="cpu")
    assert loaded.learned_classes == detector.learned_classes == (PART,)
    image = scene(40, 30)[0]
    found, kept = (each.predict(image, [PART], threshold=0) for each in (detector, loaded))
    np.testing.assert_allclose(kept.scores, found.scores, atol=1e-6)
    settings = tmp_path / "saved" / pretrained.SETTINGS
    assert json.loads(settings.read_text())["version"] == 2
    loaded.remove_class(PART.upper())
    assert loaded.learned_classes == ()
    loaded.save_pretrained(tmp_path / "saved")
    assert json.loads(settings.read_text())["version"] == 1  # which older programs read


def test_examples_that_cannot_teach_are_refused_and_leave_no_class(taught_part):
    detector, _, _ = taught_part
    image, boxes = scene(10, 8)
    for examples in ([image], {"image": boxes}, [(image, [])], []):
        with pytest.raises(ConfigError, match="examples is a list of pairs"):
            detector.add_class("other", examples)
    with pytest.raises(DataError, match="outside"):
        detector.add_class("other", [(image, [[200, 0, 210, 9]])])
    with pytest.raises(ConfigError, match="steps is 0"):
        detector.add_class("other", [(image, boxes)], steps=0)
    with pytest.raises(ConfigError, match="No class 'other' was learned"):
        detector.remove_class("other")
    assert detector.learned_classes == (PART,)


def test_copies_of_an_example_keep_the_boxes_on_the_object():
    image, boxes = scene(10, 8)
    copies = list(changed_copies(image, np.float32(boxes), 12, np.random.default_rng(0)))
    assert len(copies) == 12
    assert copies[0].image is image
    assert len({copy.image.shape for copy in copies}) > 4
    for copy in copies:
        ((x1, y1, x2, y2),) = copy.boxes.round().astype(int)
        assert copy.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1, 0].min() == 250
        outside = copy.image.copy()
        outside[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = 0
        assert outside[..., 0].max() < 150
