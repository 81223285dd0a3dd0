"""ImageDetections of one image, as arrays and in the layout of mmdet's DetInferencer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.structures import DetDataSample

from llmdet.apis.inputs import InputImage
from llmdet.errors import DataError
from llmdet.visualization.pictures import save_picture, show_picture


@dataclass(frozen=True)
class ImageDetections:
    """N boxes of one image, best first."""

    bboxes: np.ndarray  # [N, 4] float32 xyxy in pixels of the original image
    scores: np.ndarray | None  # [N] float32 in 0..1; None for boxes that the user gave
    labels: np.ndarray  # [N] int64, position in the prompt's classes or phrases
    label_names: tuple[str, ...]  # N texts
    captions: tuple[str, ...] | None = None  # N phrases of the language model
    description: str | None = None  # of the whole image
    best_score: float | None = None  # of all boxes, those below the threshold included

    @classmethod
    def from_sample(cls, sample: DetDataSample, score_thr: float) -> ImageDetections:
        """Take the predictions of at least ``score_thr``; the only place where scores are cut."""
        found = sample.pred_instances.cpu()
        scores = np.asarray(found.scores, dtype=np.float32)
        order = np.argsort(-scores, kind="stable")
        # In float64: float32 would round the threshold to a score just below it.
        order = order[scores[order].astype(np.float64) >= score_thr]
        names = list(found.get("label_names", []))
        return cls(
            np.asarray(found.bboxes, dtype=np.float32).reshape(-1, 4)[order],
            scores[order],
            np.asarray(found.labels, dtype=np.int64)[order],
            tuple(str(names[index]) for index in order),
            best_score=float(scores.max()) if len(scores) else None,
        )

    def __len__(self) -> int:
        return len(self.bboxes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON, without what is not known."""
        fields: dict[str, Any] = {
            "labels": self.labels.tolist(),
            "scores": None if self.scores is None else self.scores.tolist(),
            "bboxes": self.bboxes.tolist(),
            "label_names": list(self.label_names),
            "captions": None if self.captions is None else list(self.captions),
            "description": self.description,
            "best_score": self.best_score,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def texts(self) -> list[str]:
        """What is written beside each box: its name, and a caption that says more than the name."""
        if self.captions is None:
            return list(self.label_names)
        pairs = zip(self.label_names, self.captions, strict=True)
        return [name if _same(name, said) else f"{name}: {said}" for name, said in pairs]


def _same(name: str, caption: str) -> bool:
    return name.strip(" .").casefold() == caption.strip(" .").casefold()


def save_prediction(prediction: dict[str, Any], path: Path) -> None:
    """Write one image's prediction as JSON.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(prediction), encoding="utf-8")
    except OSError as error:
        raise DataError(f"The prediction {path} cannot be written: {error}.") from error


@dataclass
class Delivery:
    """Where the results of one call go, image by image; keeps what is to be returned.

    Attributes:
        pred_dir: Folder of the JSON files; None writes none.
        vis_dir: Folder of the pictures; None writes none.
        draw: Makes a [H, W, 3] RGB picture of a [H, W, 3] BGR image and its detections.
        print_result: Write each prediction to the standard output, one line of JSON each.
        show: Show each picture in a window.
        return_vis: Keep the pictures in ``visualization``.
    """

    pred_dir: Path | None
    vis_dir: Path | None
    draw: Callable[[np.ndarray, ImageDetections], np.ndarray]
    print_result: bool = False
    show: bool = False
    return_vis: bool = False
    predictions: list[dict[str, Any]] = field(default_factory=list)
    visualization: list[np.ndarray] = field(default_factory=list)

    def __call__(self, image: InputImage, pixels: np.ndarray, found: ImageDetections) -> None:
        """Deliver the detections of one image."""
        height, width = pixels.shape[:2]
        prediction = {"image": str(image), "width": width, "height": height, **found.to_dict()}
        self.predictions.append(prediction)
        if self.pred_dir:
            save_prediction(prediction, self.pred_dir / f"{image.name}.json")
        if self.print_result:
            sys.stdout.write(json.dumps(prediction) + "\n")
        if not (self.vis_dir or self.show or self.return_vis):
            return
        picture = self.draw(pixels, found)
        if self.vis_dir:
            save_picture(picture, self.vis_dir / f"{image.name}{image.suffix}")
        if self.show:
            show_picture(picture, str(image))
        if self.return_vis:
            self.visualization.append(picture)
