"""The beginning of a pipeline: a picture's file becomes pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile

from llmdet.datasets.pictures import (
    MAX_PIXELS,
    SIZE_TOLERANCE,
    is_plain,
    is_whole,
    open_picture,
    upright_rgb,
    without_pillow_limit,
)
from llmdet.datasets.storage.reading import read_content
from llmdet.errors import DataError, StorageError
from llmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that names broken pictures and shows each as a viewer does.

    Ordinary pictures (8 bits, RGB or grey, opaque) are decoded by ``imdecode_backend``, to the
    last bit as by mmcv. All others (CMYK, 16 bits, alpha, palettes) are decoded alike whatever the
    backend, see :mod:`llmdet.datasets.pictures`.

    Required key: img_path. Added keys: img ([H, W, 3] uint8 BGR), img_shape, ori_shape. Where
    there is annotated_size (width, height), the picture must have it, as boxes count its pixels.

    Args:
        max_pixels: larger pictures are refused before they are decoded.
        **kwargs: as of mmcv's transform; without `backend_args` those of the data set apply.
    """

    def __init__(self, *, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_pixels = max_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Read one picture.

        Raises:
            DataError: it is missing, damaged, no picture, too large or of another size than
                annotated; with ``ignore_empty`` the sample is skipped instead.
        """
        try:
            image = self._decode(results["img_path"], results.get("backend_args"))
            _check_size(image, results)
        except DataError:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        results["img_shape"] = image.shape[:2]
        results["ori_shape"] = image.shape[:2]
        return results

    def _decode(self, path: str, backend_args: Mapping[str, Any] | None) -> np.ndarray:
        try:
            content = read_content(path, self.backend_args or backend_args)
        except FileNotFoundError:
            raise DataError(f"the picture {path} does not exist") from None
        except StorageError:
            raise
        except OSError as error:
            raise DataError(f"the picture {path} cannot be read ({error.strerror})") from None
        with open_picture(content, path, self.max_pixels) as opened:
            if self.color_type == "color" and not is_plain(opened):
                return np.ascontiguousarray(np.asarray(upright_rgb(opened, path))[..., ::-1])
            if not is_whole(content, opened):
                opened.load()
            try:
                with without_pillow_limit():
                    image = mmcv.imfrombytes(
                        content, flag=self.color_type, backend=self.imdecode_backend
                    )
            except cv2.error as error:
                raise DataError(f"the picture {path} cannot be read ({error.err})") from None
        if image is None:
            raise DataError(f"the picture {path} cannot be read (its contents are damaged)")
        return image


def _check_size(image: np.ndarray, results: dict[str, Any]) -> None:
    height, width = image.shape[:2]
    annotated = results.get("annotated_size", (width, height))
    difference = (abs(a - b) for a, b in zip(annotated, (width, height), strict=True))
    if max(difference) > SIZE_TOLERANCE:
        raise DataError(
            f"the picture {results['img_path']} has {width} x {height} pixels, but its annotations "
            f"say {annotated[0]} x {annotated[1]}, so that its boxes would lie wrong; "
            "tools/convert/data.py --check --images FOLDER lists all such pictures"
        )
