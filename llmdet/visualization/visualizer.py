"""The visualizer of configs: mmdet's interface, our drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.dist import master_only
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from llmdet.datasets.sample import grounding_of
from llmdet.prompts.writing import entity_names
from llmdet.registry import VISUALIZERS
from llmdet.visualization.drawing import draw_detections
from llmdet.visualization.palette import RGB
from llmdet.visualization.pictures import save_picture, show_picture


@VISUALIZERS.register_module()
class DetLocalVisualizer(Visualizer):
    """Draw ground truth and predictions of a sample; used by hooks as mmdet's class of this name.

    Args:
        name: Name of the instance, for ``Visualizer.get_instance``.
        image: [H, W, 3] RGB picture to begin with.
        vis_backends: mmengine's backends that store pictures when no file is named.
        save_dir: Folder of the backends.
        palette: See :func:`llmdet.visualization.palette.label_color`.
    """

    def __init__(
        self,
        name: str = "visualizer",
        image: np.ndarray | None = None,
        vis_backends: Any = None,
        save_dir: str | None = None,
        palette: str | Sequence[RGB] = "none",
    ) -> None:
        super().__init__(name=name, image=image, vis_backends=vis_backends, save_dir=save_dir)
        self.palette = palette
        self.dataset_meta: dict[str, Any] = {}

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | Path | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draw a sample: ground truth at the left, predictions at the right, where there are any.

        Args:
            name: Title of the window and name of the picture in the backends.
            image: [H, W, 3] uint8 RGB.
            data_sample: With ``gt_instances`` and ``pred_instances`` in pixels of the image.
            draw_gt: Draw the ground truth, if the sample has it.
            draw_pred: Draw the predictions, if the sample has them.
            show: Open a window.
            wait_time: Seconds that the window stays; 0 waits until it is closed.
            out_file: Where to save the picture; None hands it to the backends.
            pred_score_thr: Predictions below this score are left out.
            step: Step under which backends store the picture.

        Raises:
            ConfigError: ``show`` without a screen.
            DataError: ``out_file`` cannot be written.
        """
        classes = (self.dataset_meta or {}).get("classes")
        drawn = draw_sample(
            image,
            data_sample,
            classes,
            self.palette,
            draw_gt=draw_gt,
            draw_pred=draw_pred,
            score_thr=pred_score_thr,
        )
        self.set_image(drawn)
        if show:
            show_picture(drawn, name, wait_time)
        if out_file is not None:
            save_picture(drawn, out_file)
        else:
            self.add_image(name, drawn, step)


def draw_sample(
    image: np.ndarray,
    sample: DetDataSample | None,
    classes: Sequence[str] | None = None,
    palette: str | Sequence[RGB] = "none",
    *,
    draw_gt: bool = True,
    draw_pred: bool = True,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Draw what a sample holds: ground truth at the left, predictions at the right.

    Args:
        image: [H, W, 3] uint8 RGB.
        sample: With ``gt_instances``, ``pred_instances`` or both, in pixels of the image.
        classes: Names of labels for which the sample itself has none.
        palette: See :func:`llmdet.visualization.palette.label_color`.
        draw_gt, draw_pred: Leave one of them out.
        score_thr: Predictions below this score are left out.

    Returns:
        [H', W', 3] uint8 RGB, enlarged where the image is small; the image itself if the sample
        has nothing to draw.
    """
    panels = []
    if sample is not None and draw_gt and "gt_instances" in sample:
        panels.append(_draw(image, sample.gt_instances, sample, classes, palette))
    if sample is not None and draw_pred and "pred_instances" in sample:
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        panels.append(_draw(image, found, sample, classes, palette))
    return _side_by_side(panels) if panels else image


def _side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Join [H, W, 3] pictures, the lower ones with white below them."""
    height = max(len(panel) for panel in panels)
    rows = [((0, height - len(panel)), (0, 0), (0, 0)) for panel in panels]
    padded = [np.pad(p, r, constant_values=255) for p, r in zip(panels, rows, strict=True)]
    return np.concatenate(padded, axis=1)


def _draw(
    image: np.ndarray,
    instances: InstanceData,
    sample: DetDataSample,
    classes: Sequence[str] | None,
    palette: str | Sequence[RGB],
) -> np.ndarray:
    if "bboxes" not in instances:
        return image
    instances = instances.cpu()
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    labels = np.asarray(instances.labels).tolist()
    names = instances.get("label_names")
    known = label_names(sample, classes)
    if names is None:
        names = [known[label] if label < len(known) else f"label {label}" for label in labels]
    return draw_detections(
        image,
        np.asarray(boxes),
        labels,
        names,
        np.asarray(instances.scores).tolist() if "scores" in instances else None,
        palette,
        captions=instances.get("captions"),
        description=sample.get("image_description") or "",
        classes=known,
    ).picture


def label_names(sample: DetDataSample, classes: Sequence[str] | None) -> list[str]:
    """Return what the labels of a sample stand for: its prompt first, the data set's next."""
    return list(entity_names(grounding_of(sample).prompt) or classes or [])
