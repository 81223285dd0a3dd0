"""A toy set of descriptions: Real-Data rows to train on, D3's and OmniLabel's files to test with.

Training pictures are those of the agent's world: each has an expression of one object, which may be
wrong or have been refined, beside sentences with negations and numbers, which are always true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llmdet.datasets.toy.agent_expressions import ASPECTS, Expression, facts_of, is_true, with_wrong
from llmdet.datasets.toy.agent_world import WorldSample
from llmdet.datasets.toy.captions import NUMBERS
from llmdet.datasets.toy.descriptions import (
    GROUPS,
    Description,
    false_description,
    true_descriptions,
)
from llmdet.datasets.toy.models import WORDS, tiny_bert
from llmdet.datasets.toy.scene import Scene, draw_scene, sample_scene
from llmdet.datasets.toy.vocabulary import ALL_KINDS, COLOURS, SHAPES

#: What the sentences beside the expressions are of: a relation only expressions teach.
TAUGHT_ANYWAY = ("name", "negation", "counting")
_OF_A_GROUP = 3  # true descriptions of an image
_NEGATIVES = 4  # of each sentence
_ASKED_IN_VAIN = 2  # false descriptions of each group that an image of validation is asked for
_SIDE = 160  # nominal, in pixels, as of the agent's world
_Said = tuple[int, str, list[int]]  # number, text and images of a description
_Truth = tuple[int, int, list[float]]  # number of a description, image, box xyxy


@dataclass(frozen=True)
class _Sentence:
    """What a pair of a row says."""

    source: str
    boxes: list[list[float]]  # xyxy
    category: str
    text: str
    negatives: Sequence[str]

    def pair(self) -> dict[str, Any]:
        return {
            "bboxes": self.boxes,
            "category": self.category,
            "relation": "single" if len(self.boxes) == 1 else "multi",
            "positive_expressions": [self.text],
            "negative_expressions": [text for text in self.negatives if text != self.text],
        }


def write_text_encoder(folder: Path) -> str:
    """Write a tiny BERT that knows the words of all descriptions; returns its folder."""
    words = (*WORDS, *NUMBERS, *COLOURS, *SHAPES, *SHAPES.values(), "exactly", "that", "not")
    return tiny_bert(folder, dict.fromkeys(words))


def write_training_rows(
    path: Path, samples: Sequence[WorldSample], expressions: Mapping[int, str], seed: int = 0
) -> None:
    """Write Real-Data rows of the agent's world.

    What is drawn depends on the seed and the sample alone: files of one world differ in the
    expressions and in nothing else.

    Args:
        path: the JSONL file; pictures are named as :func:`write_world` names them.
        samples: of :func:`sample_world`.
        expressions: number of a sample -> what is said of its object, true or not; a sample
            without has the other sentences alone.
        seed: of the other sentences.
    """
    with path.open("w", encoding="utf-8") as file:
        for number, sample in enumerate(samples):
            rng = np.random.default_rng([seed, 2, number])
            said = list(_sentences(sample.scene, rng))
            wrong = _wrong_expressions(sample, rng)
            if number in expressions:
                box = [round(v, 2) for v in sample.scene.items[sample.index].box]
                shape = sample.facts.shape or ""
                said.append(_Sentence("llm", [box], shape, expressions[number], wrong))
            pairs: dict[str, list[dict[str, Any]]] = {}
            for sentence in said:
                pairs.setdefault(sentence.source, []).append(sentence.pair())
            size = {"height": sample.scene.height, "width": sample.scene.width}
            row = {"filename": f"images/{number:06d}.png", **size, "pairs": pairs}
            file.write(json.dumps(row) + "\n")


def _sentences(scene: Scene, rng: np.random.Generator) -> Iterator[_Sentence]:
    """True descriptions of what is taught anyway; the group of each is its source."""
    for one in _drawn(scene, TAUGHT_ANYWAY, rng):
        found = (false_description(scene, one, rng) for _ in range(_NEGATIVES))
        false = {str(wrong) for wrong in found if wrong is not None}
        yield _Sentence(one.group, _boxes(scene, one), one.shape, str(one), sorted(false))


def _drawn(scene: Scene, groups: Sequence[str], rng: np.random.Generator) -> list[Description]:
    """Some true descriptions of each group."""
    found = true_descriptions(scene)
    chosen = []
    for group in groups:
        of_group = [one for one in found if one.group == group]
        chosen += [of_group[int(i)] for i in rng.permutation(len(of_group))[:_OF_A_GROUP]]
    return chosen


def _wrong_expressions(sample: WorldSample, rng: np.random.Generator) -> list[str]:
    """Expressions with a wrong word that are true of nothing in the picture."""
    truth = Expression.parse(sample.truth)
    assert truth is not None
    everything = [facts_of(sample.scene, index) for index in range(len(sample.scene.items))]
    found = set()
    for place in rng.permutation(len(ASPECTS)).tolist():
        wrong = with_wrong(truth, ASPECTS[place], sample.facts, rng)
        if wrong is not None and not any(is_true(str(wrong), facts) for facts in everything):
            found.add(str(wrong))
    return sorted(found)[:_NEGATIVES]


def _boxes(scene: Scene, description: Description) -> list[list[float]]:
    return [[round(v, 2) for v in scene.items[n].box] for n in description.matches(scene)]


def write_validation(out: Path, images: int, seed: int = 0) -> None:
    """Draw pictures, and write what they are asked for in the files of two benchmarks.

    Args:
        out: gets ``val/000000.png`` and so on, ``val_omnilabel.json`` with all descriptions, and
            for each group ``val_GROUP_omnilabel.json`` and ``val_GROUP_d3.json``.
        images: how many.
        seed: of all randomness.
    """
    (out / "val").mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    scenes: list[Scene] = []
    asked: dict[Description, list[int]] = {}  # description -> places of the images
    weights = np.full(len(ALL_KINDS), 1 / len(ALL_KINDS))
    for index in range(images):
        rng = np.random.default_rng([seed, 3, index])
        scene = sample_scene(rng, ALL_KINDS, weights, size=_SIDE)
        name = f"{index:06d}.png"
        Image.fromarray(draw_scene(scene, rng)).save(out / "val" / name)
        size = {"height": scene.height, "width": scene.width}
        records.append({"id": index + 1, "file_name": name, **size})
        scenes.append(scene)
        for one in _questions(scene, rng):
            asked.setdefault(one, []).append(index)
    ids = {one: number for number, one in enumerate(sorted(asked), start=1)}
    for group in ("", *GROUPS):
        chosen = [one for one in ids if group in ("", one.group)]
        said = [(ids[one], str(one), [index + 1 for index in asked[one]]) for one in chosen]
        truth = [
            (ids[one], index + 1, box)
            for one in chosen
            for index in asked[one]
            for box in _boxes(scenes[index], one)
        ]
        name = "_".join(filter(None, ("val", group)))
        _write_json(out / f"{name}_omnilabel.json", _omnilabel(records, said, truth))
        if group:
            _write_json(out / f"{name}_d3.json", _d3(records, said, truth))


def _questions(scene: Scene, rng: np.random.Generator) -> list[Description]:
    """Descriptions that an image is asked for, true and false, each once."""
    true = _drawn(scene, GROUPS, rng)
    false: list[Description] = []
    for group in GROUPS:
        of_group = [one for one in true if one.group == group][:_ASKED_IN_VAIN]
        found = (false_description(scene, one, rng) for one in of_group)
        false += [one for one in found if one is not None]
    return list(dict.fromkeys([*true, *false]))


def _omnilabel(
    images: list[dict[str, Any]], said: Sequence[_Said], truth: Sequence[_Truth]
) -> dict[str, Any]:
    kind = {"anno_info": {"type": "object_description"}}
    return {
        "images": images,
        "descriptions": [
            {"id": number, "text": text, "image_ids": those, **kind} for number, text, those in said
        ],
        "annotations": [
            {"id": i, "image_id": image, "bbox": _xywh(box), "description_ids": [number]}
            for i, (number, image, box) in enumerate(truth, start=1)
        ],
    }


def _d3(
    images: list[dict[str, Any]], said: Sequence[_Said], truth: Sequence[_Truth]
) -> dict[str, Any]:
    annotations = []
    for i, (number, image, box) in enumerate(truth, start=1):
        x, y, width, height = _xywh(box)
        place = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
        annotations.append({"id": i, "image_id": image, "category_id": number, **place})
    categories = [{"id": number, "name": text} for number, text, _ in said]
    return {"images": images, "categories": categories, "annotations": annotations}


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
