"""Objects of any outline: what proposals of the toy set learn beside its six shapes.

    python -m llmdet.datasets.toy.outlines data/toy_outlines

A detector that knows six shapes takes another one for the most similar of them, and places its box
so. Sets of masks of everything, as SA-1B is, are against that. This is the like for the toy set:
images with boxes and without names, in the layout of ``configs/_base_/datasets/proposals.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmdet.datasets.toy.folders import new_images, write_image, write_rows
from llmdet.datasets.toy.scene import Scene, draw_scene, sample_scene
from llmdet.datasets.toy.vocabulary import COLOURS, Kind
from llmdet.utils.cli import run_cli

logger = logging.getLogger(__name__)

_NAME = "object"
_KINDS = tuple(Kind(colour, _NAME) for colour in COLOURS)
_CORNERS = 3, 9
_SMOOTH = 64  # points of a smooth outline
_WAVES = 4
_LEAST = 0.25  # of an outline's distance from its middle, over the largest
_THINNEST = 0.5  # width over length that an outline is pressed to
_BEND = 1.0  # how far the ends of one of length 2 are bent aside, at most


def random_outline(rng: np.random.Generator) -> tuple[np.ndarray]:
    """A polygon [P, 2] of any form around the middle of the unit circle that it fits, y down.

    One half have three to nine corners, the others are smooth; all are pressed and bent in some
    direction.
    """
    corners = int(rng.integers(_CORNERS[0], _CORNERS[1] + 1))
    if rng.random() < 0.5:
        shifts = rng.uniform(-0.35, 0.35, corners)
        angles: np.ndarray = 2 * np.pi * (np.arange(corners) + shifts) / corners
        radii = rng.uniform(_LEAST, 1, corners)
    else:
        angles = np.linspace(0, 2 * np.pi, _SMOOTH, endpoint=False)
        waves = np.arange(1, _WAVES + 1)[:, None]
        heights = rng.uniform(-0.5, 0.5, waves.shape) / np.sqrt(waves)
        phases = rng.uniform(0, 2 * np.pi, waves.shape)
        radii = 1 + (heights * np.cos(waves * angles + phases)).sum(0)
        radii = np.maximum(radii, _LEAST)
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    turn = rng.uniform(0, np.pi)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = points @ axes * (1, rng.uniform(_THINNEST, 1))
    points[:, 1] += rng.uniform(-_BEND, _BEND) * points[:, 0] ** 2
    points = points @ axes.T
    points -= (points.min(0) + points.max(0)) / 2
    return (points / np.linalg.norm(points, axis=1).max(),)


def generate_outlines(out: str | Path, train: int = 1200) -> Path:
    """Write the set below ``out``; equal arguments write equal files.

    Args:
        out: a folder without images/.
        train: images, of one to six objects.

    Returns:
        ``out``.

    Raises:
        DataError: the folder holds other images.
    """
    out = Path(out)
    with new_images(out, "outlines") as images:
        rows = []
        for index in range(train):
            name, rng = f"train_{index:04d}.jpg", np.random.default_rng([0, 6, index])
            scene = _sample(rng)
            write_image(images / name, draw_scene(scene, rng))
            rows.append(_row(name, scene))
        annotations = out / "annotations" / "proposals_train.jsonl"
        write_rows(annotations, rows)
        annotations.with_name("proposals_train_label_map.json").write_text(json.dumps({"0": _NAME}))
    logger.info("%s: %d images", annotations, train)
    return out


def _sample(rng: np.random.Generator) -> Scene:
    weights = np.full(len(_KINDS), 1 / len(_KINDS))
    return sample_scene(rng, _KINDS, weights, outline_of=lambda _: random_outline(rng))


def _row(name: str, scene: Scene) -> dict[str, object]:
    """The detection row of docs/data.md."""
    instances = [
        {"bbox": [round(v, 2) for v in item.box], "label": 0, "category": _NAME}
        for item in scene.items
    ]
    size = {"filename": name, "height": scene.height, "width": scene.width}
    return {**size, "detection": {"instances": instances}}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m llmdet.datasets.toy.outlines",
        description="Write images of objects of any outline, with boxes and without names.",
    )
    parser.add_argument("out", help="folder to write, for example data/toy_outlines")
    parser.add_argument("--train", type=int, default=1200, help="images (default 1200)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    generate_outlines(args.out, args.train)


if __name__ == "__main__":
    run_cli(main)
