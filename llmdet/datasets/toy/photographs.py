"""Photographs behind the objects of toy scenes: those that scikit-image brings along."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from llmdet.errors import DataError

#: Behind objects in training images.
TRAINING_PHOTOGRAPHS: tuple[str, ...] = (
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
)
#: Behind objects in the other splits only.
HELD_OUT_PHOTOGRAPHS: tuple[str, ...] = ("astronaut.png", "coffee.png")


@lru_cache(maxsize=len(TRAINING_PHOTOGRAPHS) + len(HELD_OUT_PHOTOGRAPHS))
def read_photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image: [H, W, 3] uint8, RGB.

    Raises:
        DataError: scikit-image is missing, or does not have it.
    """
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise DataError(
            f"toy set: the photograph {name} comes with scikit-image, which is not installed; "
            "`pip install scikit-image`, or make the set without photographs (--no-photographs)."
        )
    path = Path(package.origin).parent / "data" / name
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DataError(
            f"toy set: {path} is missing; install scikit-image 0.24 to 0.26, or make the set "
            "without photographs (--no-photographs)."
        )
    pixels.flags.writeable = False
    return pixels
