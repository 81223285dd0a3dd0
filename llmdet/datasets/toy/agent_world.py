"""A world in which Real-LOD's agent can be measured: toy scenes whose truth is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from llmdet.datasets.toy.agent_expressions import (
    ASPECTS,
    BREAKS,
    Facts,
    facts_of,
    is_true,
    true_expression,
    with_wrong,
)
from llmdet.datasets.toy.agent_models import sentences
from llmdet.datasets.toy.scene import Item, Scene, draw_scene, sample_scene, unit_outline
from llmdet.datasets.toy.vocabulary import ALL_KINDS

logger = logging.getLogger(__name__)

CATEGORY = "shape"  # the coarse name that a detector gives to every object
_SIZE = 160  # nominal side of a picture in pixels
_TOLD = 0.4  # share of the aspects that a caption tells
_ACCOMPANIED = 0.7  # share of the objects that a small thing lies beside, where there is room
_COMPANION = 0.42  # its side, of the longer side of the object


@dataclass(frozen=True, eq=False)
class WorldSample:
    """An expression of an object of a scene.

    Attributes:
        scene: the picture is drawn from it.
        index: of the object in the scene.
        facts: all that is true of it.
        truth: a true expression.
        expression: the same, or one that is broken.
        broken: how, one of :data:`BREAKS`; empty where it is true.
        caption: of the object and the scene: true, and not all that is.
    """

    scene: Scene
    index: int
    facts: Facts
    truth: str
    expression: str
    broken: str
    caption: str

    def record(self, image_path: str) -> dict[str, Any]:
        """What the agent reads (:mod:`llmdet.data_engines.real_lod_records`)."""
        boxes = [_xywh(item.box) for item in self.scene.items]
        located = [{"id": i, "category": CATEGORY, "bbox": boxes[i]} for i in range(len(boxes))]
        return {
            "image_path": image_path,
            "height": self.scene.height,
            "width": self.scene.width,
            "raw_expression": f"'{self.expression}'",
            "global_caption": self.caption,
            "object_locations": {
                "chosen_object": located[self.index],
                "other_objects": [one for one in located if one["id"] != self.index],
            },
        }


def sample_world(count: int, seed: int = 0, broken: float = 6 / 7) -> list[WorldSample]:
    """Draw samples; each depends on the seed and its number alone.

    Args:
        count: how many.
        seed: of all randomness.
        broken: share of the expressions that are broken, 0..1, each of the six ways alike often.
    """
    return [_sample(np.random.default_rng([seed, number]), broken) for number in range(count)]


def _sample(rng: np.random.Generator, broken: float) -> WorldSample:
    weights = np.full(len(ALL_KINDS), 1 / len(ALL_KINDS))
    scene = sample_scene(rng, ALL_KINDS, weights, (), _SIZE)
    while len(scene.items) < 2:
        scene = sample_scene(rng, ALL_KINDS, weights, (), _SIZE)
    index = int(rng.integers(len(scene.items)))
    if rng.random() < _ACCOMPANIED:
        scene = _with_companion(scene, index, rng)
    facts = facts_of(scene, index)
    truth = true_expression(facts, rng)
    way, expression = "", str(truth)
    if rng.random() < broken:
        for way in _shuffled(BREAKS, rng):
            if way == "object":
                found = _of_another(scene, index, facts, rng)
            else:
                wrong = with_wrong(truth, way, facts, rng)
                found = None if wrong is None else str(wrong)
            if found is not None:
                expression = found
                break
    return WorldSample(
        scene, index, facts, str(truth), expression, way, _caption(scene, facts, rng)
    )


def _with_companion(scene: Scene, index: int, rng: np.random.Generator) -> Scene:
    """A scene with a small thing close beside an object, where there is room for it.

    It is whole in an extended crop of the object, and too small for its shape to be told in the
    whole picture.
    """
    kind = ALL_KINDS[int(rng.integers(len(ALL_KINDS)))]
    x1, y1, x2, y2 = scene.items[index].box
    radius = _COMPANION * max(x2 - x1, y2 - y1) / 2
    dx, dy = (x2 - x1) / 2 + radius + 1, (y2 - y1) / 2 + radius + 1
    shifts = [(-dx, 0.0), (dx, 0.0), (0.0, -dy), (0.0, dy)]
    for turn in rng.permutation(len(shifts)):
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) + shifts[turn]
        outline = tuple(radius * part + centre for part in unit_outline(kind.shape))
        companion = Item(kind, "small", outline)
        if _has_room(companion.box, scene):
            return replace(scene, items=(*scene.items, companion))
    return scene


def _has_room(box: Sequence[float], scene: Scene) -> bool:
    x1, y1, x2, y2 = box
    if min(x1, y1) < 1 or x2 > scene.width - 1 or y2 > scene.height - 1:
        return False
    return all(
        x2 + 1 <= other[0] or other[2] + 1 <= x1 or y2 + 1 <= other[1] or other[3] + 1 <= y1
        for other in (item.box for item in scene.items)
    )


def _shuffled(values: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))]


def _of_another(scene: Scene, index: int, facts: Facts, rng: np.random.Generator) -> str | None:
    """A true expression of another object that is not true of this one."""
    for other in rng.permutation(len(scene.items)):
        if other != index:
            expression = str(true_expression(facts_of(scene, int(other)), rng))
            if not is_true(expression, facts):
                return expression
    return None


def _caption(scene: Scene, facts: Facts, rng: np.random.Generator) -> str:
    """Some of what is true of an object."""
    told = {aspect for aspect in ASPECTS if rng.random() < _TOLD}
    some = replace(
        facts,
        **{aspect: None for aspect in ASPECTS[:-1] if aspect not in told},  # type: ignore[arg-type]
        relations=facts.relations if "relation" in told else frozenset(),
    )
    return f"One of {len(scene.items)} shapes. {sentences(some)}".strip()


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]


def write_world(folder: Path, samples: Sequence[WorldSample], seed: int = 0) -> Path:
    """Draw the pictures of samples and write their records.

    Args:
        folder: gets ``images/000000.png`` and so on, and ``expressions.jsonl``.
        samples: of :func:`sample_world`.
        seed: of noise and backgrounds.

    Returns:
        The file of records.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    out = folder / "expressions.jsonl"
    with out.open("wb") as file:
        for number, sample in enumerate(samples):
            name = f"images/{number:06d}.png"
            pixels = draw_scene(sample.scene, np.random.default_rng([seed, number, 1]))
            Image.fromarray(pixels).save(folder / name)
            file.write(orjson.dumps(sample.record(name), option=orjson.OPT_APPEND_NEWLINE))
    logger.info("%s: %d expressions", out, len(samples))
    return out
