"""Something to fine-tune on: shapes that the toy set has no name for, among those that it has.

    python -m llmdet.datasets.toy.new_shapes OUT

writes a folder as ``configs/finetune/`` expects it: OUT/{instances_train.json, instances_val.json,
images/}. The classes are the four new shapes, in any colour; known shapes lie between them and are
not annotated, as in anybody's own data.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.toy.folders import new_images, write_image
from llmdet.datasets.toy.scene import Scene, draw_scene, sample_scene
from llmdet.datasets.toy.vocabulary import COLOURS, SEEN, Kind
from llmdet.utils.cli import run_cli

logger = logging.getLogger(__name__)

#: No text or picture of the toy set has one of these.
NEW_SHAPES: tuple[str, ...] = ("arrow", "heart", "moon", "pentagon")
NEW_KINDS: tuple[Kind, ...] = tuple(Kind(c, s) for c in COLOURS for s in NEW_SHAPES)
_KNOWN_SHARE = 0.5  # of the objects that are drawn beside the first of an image


def generate_new_shapes(
    out: str | Path,
    *,
    train: int = 60,
    val: int = 60,
    size: int = 128,
    seed: int = 0,
    colours: Sequence[str] = tuple(COLOURS),
) -> Path:
    """Write the set below ``out``; equal arguments write equal files.

    Args:
        out: a folder without images/.
        train: images; each has one new shape at least.
        val: likewise.
        size: nominal side of an image in pixels.
        seed: of everything that is random.
        colours: of the new shapes; known ones between them have any.

    Returns:
        ``out``.

    Raises:
        DataError: the folder holds other images.
    """
    out = Path(out)
    with new_images(out, "new shapes") as images:
        for stream, (split, number) in enumerate({"train": train, "val": val}.items()):
            scenes = {}
            for index in range(number):
                rng = np.random.default_rng([seed, 4, stream, index])
                scene = _sample(rng, size, colours)
                name = f"{split}_{index:04d}.jpg"
                write_image(images / name, draw_scene(scene, rng))
                scenes[name] = scene
            path = out / f"instances_{split}.json"
            path.write_text(json.dumps(_coco(scenes)), encoding="utf-8")
            logger.info("%s: %d images", path, number)
    return out


def _sample(rng: np.random.Generator, size: int, colours: Sequence[str]) -> Scene:
    new = [kind for kind in NEW_KINDS if kind.colour in colours]
    kinds = (*new, *SEEN)
    weights = np.full(len(kinds), _KNOWN_SHARE / len(SEEN))
    weights[: len(new)] = (1 - _KNOWN_SHARE) / len(new)
    required = [new[int(rng.integers(len(new)))]]
    return sample_scene(rng, kinds, weights, required, size)


def _coco(scenes: dict[str, Scene]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, scene in scenes.items():
        image = {"id": len(images) + 1, "file_name": name}
        images.append({**image, "width": scene.width, "height": scene.height})
        for item in scene.items:
            if item.kind.shape not in NEW_SHAPES:
                continue
            x1, y1, x2, y2 = (round(v, 2) for v in item.box)
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": NEW_SHAPES.index(item.kind.shape) + 1,
                    "bbox": [x1, y1, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(NEW_SHAPES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m llmdet.datasets.toy.new_shapes",
        description="Write a small set of shapes that the toy set has no name for.",
    )
    parser.add_argument("out", help="folder to write, for example data/new_shapes")
    parser.add_argument("--train", type=int, default=60, help="training images (default 60)")
    parser.add_argument("--val", type=int, default=60, help="validation images (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--colours", nargs="+", choices=COLOURS, default=list(COLOURS), help="default: all"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    generate_new_shapes(
        args.out, train=args.train, val=args.val, seed=args.seed, colours=args.colours
    )


if __name__ == "__main__":
    run_cli(main)
