"""What was found in one image: arrays that read like a list, and the forms that others want."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from llmdet.errors import DataError

if TYPE_CHECKING:
    import pandas
    import supervision

#: Detections that ``repr`` lists.
_LISTED = 10
_LONGEST_NAME = 32


@dataclass(frozen=True)
class Picture:
    """The image that boxes lie in."""

    source: Path | np.ndarray  # a file, or [H, W, 3] uint8 RGB
    width: int
    height: int

    def __str__(self) -> str:
        return "the array" if isinstance(self.source, np.ndarray) else str(self.source)

    def pixels(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB; a file is read anew.

        Raises:
            DataError: the file is gone or has become another picture.
        """
        from llmdet.datasets.pictures import read_picture

        if isinstance(self.source, np.ndarray):
            return self.source
        pixels = np.asarray(read_picture(self.source))
        if pixels.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.source} had {self.width} x {self.height} pixels when it was looked at, and "
                f"has {pixels.shape[1]} x {pixels.shape[0]} now: its boxes would lie wrong."
            )
        return pixels


@dataclass(frozen=True)
class Detection:
    """One of the boxes of an image."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the original image
    score: float | None  # 0..1; None for a box that the user gave
    label: int  # position among the classes or phrases
    name: str
    caption: str | None = None  # what the language model says of it


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """N detections of one image, best first.

    ``len``, iteration and ``results[0]`` give :class:`Detection`; a slice, a mask or a list of
    positions gives the :class:`Results` of these: ``results[results.scores > 0.5]``.
    """

    picture: Picture
    boxes: np.ndarray  # [N, 4] float32 xyxy in pixels of the original image
    scores: np.ndarray | None  # [N] float32 in 0..1; None for boxes that the user gave
    labels: np.ndarray  # [N] int64, position in classes
    names: list[str]  # N texts
    classes: tuple[str, ...] = ()  # what was looked for: class names, phrases or an expression
    captions: list[str] | None = None  # N phrases of the language model
    description: str | None = None  # of the whole image
    best_score: float | None = None  # of all boxes, those below the threshold included

    @property
    def image(self) -> str | None:
        """The path of the image, None for one that came as an array."""
        return None if isinstance(self.picture.source, np.ndarray) else str(self.picture.source)

    @property
    def width(self) -> int:
        """Of the original image in pixels."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Of the original image in pixels."""
        return self.picture.height

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        return (self._detection(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Results: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> Detection | Results:
        if isinstance(index, (int, np.integer)):
            return self._detection(range(len(self))[index])
        return self.select(np.arange(len(self))[index])

    def select(self, positions: np.ndarray) -> Results:
        """The detections at some positions, [n] int64, in this order."""
        captions = self.captions
        return replace(
            self,
            boxes=self.boxes[positions],
            scores=None if self.scores is None else self.scores[positions],
            labels=self.labels[positions],
            names=[self.names[index] for index in positions],
            captions=None if captions is None else [captions[index] for index in positions],
        )

    def _detection(self, index: int) -> Detection:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Detection(
            (x1, y1, x2, y2),
            None if self.scores is None else float(self.scores[index]),
            int(self.labels[index]),
            self.names[index],
            None if self.captions is None else self.captions[index],
        )

    # As others want them.

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON, without what is not known; mmdet's DetInferencer's names."""
        fields: dict[str, Any] = {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "labels": self.labels.tolist(),
            "scores": None if self.scores is None else self.scores.tolist(),
            "bboxes": self.boxes.tolist(),
            "label_names": list(self.names),
            "captions": None if self.captions is None else list(self.captions),
            "description": self.description,
            "best_score": self.best_score,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a COCO result file.

        Args:
            image_id: of this image in the annotations.
            category_ids: of each label, or of each name; None takes the labels themselves.

        Raises:
            DataError: a label or name has no category.
        """
        rows = []
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            row = {
                "image_id": image_id,
                "category_id": self._category(index, category_ids),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            scored = {} if self.scores is None else {"score": float(self.scores[index])}
            rows.append(row | scored)
        return rows

    def _category(self, index: int, ids: Sequence[int] | Mapping[str, int] | None) -> int:
        label, name = int(self.labels[index]), self.names[index]
        if ids is None:
            return label
        try:
            return ids[name] if isinstance(ids, Mapping) else ids[label]
        except LookupError:
            raise DataError(
                f"category_ids has {len(ids)} entries and none for label {label}, {name!r}."
            ) from None

    def to_supervision(self) -> supervision.Detections:
        """``supervision.Detections``; names and captions are in its ``data``.

        Raises:
            DataError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise DataError("to_supervision() needs `pip install supervision`.") from error
        data: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        if self.captions is not None:
            data["caption"] = np.array(self.captions, dtype=str)
        return Detections(
            xyxy=self.boxes.copy(), confidence=self.scores, class_id=self.labels, data=data
        )

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for each detection: x1, y1, x2, y2, score, label, name, caption.

        Raises:
            DataError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise DataError("to_pandas() needs `pip install pandas`.") from error
        columns = {key: self.boxes[:, place] for place, key in enumerate(("x1", "y1", "x2", "y2"))}
        known = {"score": self.scores, "label": self.labels, "name": self.names}
        known["caption"] = self.captions
        return DataFrame(columns | {key: part for key, part in known.items() if part is not None})

    # To look at.

    def plot(self, palette: Any = "none") -> Image.Image:
        """The image with boxes, names and scores; captions and the description stand below it.

        Args:
            palette: colours, see :func:`llmdet.visualization.palette.detection_colors`.
        """
        from llmdet.visualization.drawing import draw_detections

        picture = draw_detections(
            self.picture.pixels(),
            self.boxes,
            self.labels.tolist(),
            self.names,
            self.scores,
            palette,
            captions=self.captions,
            description=self.description or "",
            classes=self.classes,
        ).picture
        return Image.fromarray(picture)

    def save(self, path: str | Path, palette: Any = "none") -> None:
        """Write the picture of :meth:`plot`, or what :meth:`to_dict` says where it ends in .json.

        Raises:
            DataError: the suffix is no format, or the file cannot be written.
        """
        from llmdet.visualization.pictures import save_picture

        path = Path(path)
        if path.suffix.lower() != ".json":
            save_picture(np.asarray(self.plot(palette)), path)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.to_dict()), encoding="utf-8")
        except OSError as error:
            raise DataError(f"The prediction {path} cannot be written: {error}.") from error

    def __repr__(self) -> str:
        where = Path(self.image).name if self.image else "an array"
        count = f"{len(self)} detection{'' if len(self) == 1 else 's'}"
        lines = [f"Results({count} in {where}, {self.width} x {self.height} pixels)"]
        if not len(self) and self.best_score is not None:
            lines[0] = f"{lines[0][:-1]}; the best score is {self.best_score:.2f})"
        for found in list(self)[:_LISTED]:
            score = "" if found.score is None else f"{found.score:.2f} "
            name = found.name if len(found.name) <= _LONGEST_NAME else f"{found.name[:31]}…"
            box = " ".join(f"{value:7.1f}" for value in found.box)
            lines.append(f"  {score}{name:<{_LONGEST_NAME}} {box}  {found.caption or ''}".rstrip())
        if len(self) > _LISTED:
            lines.append(f"  ... and {len(self) - _LISTED} more")
        return "\n".join(lines)

    def _repr_png_(self) -> bytes:
        """The picture, which notebooks show in the place of ``repr``."""
        file = io.BytesIO()
        self.plot().save(file, "PNG")
        return file.getvalue()
