"""The prediction file of ``tools/test.py --out``, read without a model.

A JSONL file. The first line is a header that says what made the predictions; then comes one line
per sample: ``image_id``, ``boxes`` (xyxy in pixels of the original image), ``scores`` and
``labels``. Labels index the header's ``classes``, or the line's ``category_ids`` where every image
has a label space of its own. A model that answers in words adds ``text`` and, where it has them,
``phrases``, ``indices`` and ``masks``. Numbers are float32.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from llmdet.errors import DataError
from llmdet.utils.files import require
from llmdet.utils.suggest import did_you_mean

FORMAT = "llmdet-predictions"
VERSION = 2

LimitPer = Literal["image", "chunk"]


def prompts_in_words(chunk_size: int) -> str:
    """What a prompt held, for reports: AP of descriptions depends on it as on the weights.

    Args:
        chunk_size: class names or descriptions of a prompt; -1: as many as fit.
    """
    if chunk_size == 1:
        return "one class name or description in each prompt"
    held = "as many as fit" if chunk_size == -1 else f"up to {chunk_size}"
    return f"class names or descriptions concatenated, {held} in each prompt"


@dataclasses.dataclass(frozen=True)
class PredictionHeader:
    """What made the predictions: everything that changes a number, but the image itself."""

    model: str  # name of the config
    weights_hash: str | None = None  # sha256 of the weights file
    classes: tuple[str, ...] = ()  # names of the labels, as they are prompted
    category_names: tuple[str, ...] = ()  # of the labels in the annotations, if others than these
    chunk_size: int | None = None  # classes per prompt, -1 = as many as fit
    limit_per: LimitPer | None = None  # what max_per_image limits: an image, or each of its prompts
    max_per_image: int | None = None  # boxes kept, best first
    score_threshold: float = 0.0  # lower scores were not written
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)  # all other settings

    def as_dict(self) -> dict[str, Any]:
        """The header line as JSON values."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: str) -> "PredictionHeader":
        """The header of a parsed first line.

        Raises:
            DataError: the line is no header of this format and version.
        """
        if values.get("format") != FORMAT:
            raise DataError(f"{where}: the first line is no header of the format {FORMAT!r}")
        if values.get("version") != VERSION:
            raise DataError(
                f"{where}: version {values.get('version')!r} is unknown; this reads {VERSION}"
            )
        known = {field.name for field in dataclasses.fields(PredictionHeader)}
        fields = {name: values[name] for name in known if name in values}
        if "model" not in fields:
            raise DataError(f"{where}: the header has no field 'model'")
        for name in ("classes", "category_names"):
            fields[name] = tuple(fields.get(name, ()))
        return PredictionHeader(**fields)


@dataclasses.dataclass(frozen=True)
class ImagePredictions:
    """What a model predicts for one sample: N scored boxes, and what it says in words."""

    image_id: int  # of the image, or of the expression or question where annotations count these
    boxes: np.ndarray  # [N, 4] float32 xyxy, pixels of the original image
    scores: np.ndarray  # [N] float32
    labels: np.ndarray  # [N] int64
    category_ids: tuple[int, ...] | None = None  # category of each label, if the image's own
    text: str | None = None  # the whole answer
    phrases: tuple[str, ...] | None = None  # of the text, one for each mask or given region
    indices: tuple[int, ...] | None = None  # rows of boxes that the answer names, in its order
    masks: tuple[dict[str, Any], ...] | None = None  # COCO RLE, counts as text

    def chosen(self) -> "ImagePredictions":
        """The sample with the boxes that its answer names; all of them if it has no indices."""
        if self.indices is None:
            return self
        rows = np.asarray(self.indices, np.int64)
        return dataclasses.replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            indices=None,
        )


FIELDS = tuple(field.name for field in dataclasses.fields(ImagePredictions))


def prediction_row(
    image_id: int,
    boxes: Any = (),
    scores: Any = (),
    labels: Any = (),
    **words: Any,
) -> ImagePredictions:
    """A row from arrays, tensors or lists, checked.

    Args:
        image_id: id in the annotations.
        boxes: [N, 4] xyxy, pixels of the original image.
        scores: [N].
        labels: [N] integers.
        **words: ``category_ids``, ``text``, ``phrases``, ``indices`` and ``masks`` of
            :class:`ImagePredictions`, each None if the model gives none.
    Raises:
        DataError: boxes, scores and labels disagree in length or hold a NaN, an index is no row
            of boxes, or masks and phrases disagree in number.
    """
    given: dict[str, Any] = {
        name: value if name == "text" else _tuple(name, value)
        for name, value in words.items()
        if value is not None
    }
    row = ImagePredictions(
        image_id=int(image_id),
        boxes=_array(boxes, np.float32).reshape(-1, 4),
        scores=_array(scores, np.float32).reshape(-1),
        labels=_array(labels, np.int64).reshape(-1),
        **given,
    )
    _check_row(row, f"predictions of image {row.image_id}")
    return row


def read_header(path: str | Path) -> PredictionHeader:
    """The header of a prediction file.

    Raises:
        DataError: the file is missing or is no prediction file.
    """
    try:
        with Path(path).open("rb") as stream:
            line = stream.readline()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return PredictionHeader.from_dict(_parse(line, f"{path}:1"), f"{path}:1")


def iter_predictions(path: str | Path) -> Iterator[ImagePredictions]:
    """The rows of a prediction file and of its unmerged parts, one at a time, each image once.

    Raises:
        DataError: a line cannot be read; the message names file and line. A torn last line,
            left by a killed program, is passed over.
    """
    seen: set[int] = set()
    files = files_of(Path(path))
    if not files:
        raise DataError(f"cannot read {path}: no such file")
    for file in files:
        for row in iter_file(file):
            if row.image_id not in seen:
                seen.add(row.image_id)
                yield row


def read_predictions(path: str | Path) -> tuple[PredictionHeader, list[ImagePredictions]]:
    """Header and all rows of a prediction file, ordered by image id.

    The order of the file depends on how many processes wrote it and how often it was resumed.
    """
    files = files_of(Path(path))
    if not files:
        raise DataError(f"cannot read {path}: no such file")
    rows = sorted(iter_predictions(path), key=lambda row: row.image_id)
    return read_header(files[0]), rows


def is_prediction_file(path: str | Path) -> bool:
    """Whether the file starts with a header of this format."""
    try:
        with Path(path).open("rb") as stream:
            return f'"format":"{FORMAT}"'.encode() in stream.readline(4096).replace(b" ", b"")
    except OSError:
        return False


def files_of(path: Path) -> list[Path]:
    """A prediction file, where it exists, and the parts that several processes wrote of it."""
    parts = sorted(path.parent.glob(f"{path.name}.part*"))
    return [path, *parts] if path.exists() else parts


def iter_file(path: Path) -> Iterator[ImagePredictions]:
    """The rows of one file; none if it does not exist."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 or not line.endswith(b"\n"):
                continue
            where = f"{path}:{number}"
            values = _parse(line, where)
            for field in ("image_id", "boxes", "scores", "labels"):
                require(values, field, where)
            for field in values:
                if field not in FIELDS:
                    raise DataError(f"{where} has a field {field!r}; {did_you_mean(field, FIELDS)}")
            try:
                yield prediction_row(**values)
            except (TypeError, ValueError, DataError) as error:
                raise DataError(f"{where}: {error}") from error


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{where} must be a JSON object, not {type(values).__name__}")
    return values


def _check_row(row: ImagePredictions, where: str) -> None:
    lengths = {name: len(getattr(row, name)) for name in ("boxes", "scores", "labels")}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where} disagree in length: {lengths}")
    if not (np.isfinite(row.boxes).all() and np.isfinite(row.scores).all()):
        raise DataError(f"{where} hold NaN or infinity")
    wrong = [index for index in row.indices or () if not 0 <= index < len(row.boxes)]
    if wrong:
        raise DataError(f"{where} name box {wrong[0]} of {len(row.boxes)}")
    if row.text is not None and not isinstance(row.text, str):
        raise DataError(f"{where}: the text is {row.text!r}, not a string")


def _array(values: Any, dtype: type) -> np.ndarray:
    values = getattr(values, "tensor", values)  # mmdet's box containers
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if dtype is np.float32 else values
    return np.ascontiguousarray(np.asarray(values), dtype=dtype)


def _tuple(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if name in ("category_ids", "indices"):
        return tuple(_array(values, np.int64).tolist())
    return tuple(_rle(mask) for mask in values) if name == "masks" else tuple(values)


def _rle(mask: Any) -> dict[str, Any]:
    """A COCO RLE whose counts are text, from one of any form or a binary mask [H, W]."""
    if not isinstance(mask, Mapping):
        from pycocotools import mask as mask_utils

        mask = mask_utils.encode(np.asfortranarray(_array(mask, np.uint8)))
    counts, size = mask["counts"], [int(side) for side in mask["size"]]
    return {"size": size, "counts": counts.decode() if isinstance(counts, bytes) else counts}
