"""The resizing of pipelines, without what mmdet's would import."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.image import imresize
from mmcv.transforms import Resize as MMCVResize
from mmdet.structures.bbox import autocast_box_type

from llmdet.datasets.views import inside
from llmdet.errors import DataError
from llmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Resize(MMCVResize):
    """mmdet's transform of this name, on top of mmcv's, whose settings it has.

    Required keys: img. Modified keys, where they are there: img, img_shape, gt_bboxes, gt_masks,
    gt_seg_map. Added keys: scale, scale_factor (width, height), keep_ratio, homography_matrix.
    """

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize one sample; see the class for keys.

        Raises:
            DataError: the picture is so narrow that a side would have no pixel.
        """
        results = super().transform(results)
        self._resize_masks(results)
        matrix = np.diag([*results["scale_factor"], 1]).astype(np.float32)
        earlier = results.get("homography_matrix")
        results["homography_matrix"] = matrix if earlier is None else matrix @ earlier
        return results

    def _resize_img(self, results: dict[str, Any]) -> None:
        try:
            self._resize_pixels(results)
        except (cv2.error, ValueError) as error:
            height, width = results["img"].shape[:2]
            raise DataError(
                f"the picture {results.get('img_path') or 'that was given'} has {width} x {height} "
                f"pixels; scaled to {results['scale']} one of its sides would have no pixel. Crop "
                "it or leave it out"
            ) from error

    def _resize_pixels(self, results: dict[str, Any]) -> None:
        super()._resize_img(results)

    def _resize_bboxes(self, results: dict[str, Any]) -> None:
        boxes = results.get("gt_bboxes")
        if boxes is None:
            return
        boxes.rescale_(results["scale_factor"])
        if self.clip_object_border:
            boxes.clip_(results["img_shape"])

    def _resize_masks(self, results: dict[str, Any]) -> None:
        masks = results.get("gt_masks")
        if masks is not None and self.keep_ratio:
            results["gt_masks"] = masks.rescale(results["scale"])
        elif masks is not None:
            results["gt_masks"] = masks.resize(results["img_shape"])


@TRANSFORMS.register_module()
class FixScaleResize(Resize):
    """The resizing of test pipelines: as :class:`Resize`, with sizes rounded down, so that no side
    exceeds its limit."""

    def _resize_pixels(self, results: dict[str, Any]) -> None:
        if not self.keep_ratio:
            super()._resize_pixels(results)
            return
        height, width = results["img"].shape[:2]
        rows, columns = inside(height, width, results["scale"])
        results["img"] = imresize(
            results["img"],
            (columns, rows),
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results["img_shape"] = (rows, columns)
        results["scale_factor"] = (columns / width, rows / height)
        results["keep_ratio"] = True
