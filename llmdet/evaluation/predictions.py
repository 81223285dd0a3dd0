"""The prediction file of ``tools/test.py --out``: written image by image, read without a model.

A JSONL file. The first line is a header that says what made the predictions; then comes one line
per image: ``{"image_id", "boxes": xyxy in pixels of the original image, "scores", "labels"}``.
Labels index the header's ``classes``, or the line's own ``category_ids`` where every image has a
label space of its own. Numbers are float32.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson

from llmdet.errors import ConfigError, DataError

FORMAT = "llmdet-predictions"
VERSION = 1
TORN_HEADER = f'{{"format":"{FORMAT}"'.encode()


@dataclasses.dataclass(frozen=True)
class PredictionHeader:
    """What made the predictions, so that a number can be traced to its model and protocol."""

    model: str  # name of the config
    weights_hash: str | None = None  # sha256 of the weights file
    prompts_hash: str | None = None  # sha256 of the class names, one a line
    chunk_size: int | None = None  # classes per prompt, -1 = as many as fit
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)  # options by name
    score_threshold: float = 0.0  # lower scores were not written
    classes: tuple[str, ...] = ()  # names of the labels

    def as_dict(self) -> dict[str, Any]:
        """The header line as JSON values."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @staticmethod
    def from_dict(values: dict[str, Any], where: str) -> "PredictionHeader":
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
        fields["classes"] = tuple(fields.get("classes", ()))
        return PredictionHeader(**fields)


@dataclasses.dataclass(frozen=True)
class ImagePredictions:
    """N scored boxes of one image."""

    image_id: int
    boxes: np.ndarray  # [N, 4] float32 xyxy, pixels of the original image
    scores: np.ndarray  # [N] float32
    labels: np.ndarray  # [N] int64
    category_ids: tuple[int, ...] | None = None  # category of each label, if the image's own


class PredictionWriter:
    """Appends one line per image; what is already in the file stays and need not be redone.

    A line that a killed program left torn at the end is cut off. Several processes write parts
    of their own, which `merge_parts` joins; all of them count as done whatever the number of
    processes that resume.

    Args:
        path: the prediction file.
        header: refused if the file exists with another one.
        rank: number of this process.
        world_size: number of processes that write.
    Raises:
        ConfigError: the file was made by another model or protocol.
        DataError: the file exists and is no prediction file.
    """

    def __init__(
        self, path: str | Path, header: PredictionHeader, rank: int = 0, world_size: int = 1
    ) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own = self.path if world_size == 1 else _part(self.path, rank)
        self.done: set[int] = set()
        for file in _files(self.path):
            self.done |= _prepare_resume(file, header, repair=file == own)
        self._stream = own.open("ab")
        if self._stream.tell() == 0:
            self._write_line(header.as_dict())

    def write(
        self,
        image_id: int,
        boxes: Any,
        scores: Any,
        labels: Any,
        category_ids: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Append one image; an image that is already present is left as it is.

        Args:
            image_id: id in the annotations.
            boxes: [N, 4] xyxy, pixels of the original image; array or tensor.
            scores: [N].
            labels: [N] integers.
            category_ids: category of each label, where the image has its own label space.
        Raises:
            DataError: the three disagree in length or hold a NaN.
        """
        image_id = int(image_id)
        if image_id in self.done:
            return
        line: dict[str, Any] = {
            "image_id": image_id,
            "boxes": _array(boxes, np.float32).reshape(-1, 4),
            "scores": _array(scores, np.float32).reshape(-1),
            "labels": _array(labels, np.int64).reshape(-1),
        }
        lengths = {name: len(line[name]) for name in ("boxes", "scores", "labels")}
        if len(set(lengths.values())) != 1:
            raise DataError(f"predictions of image {image_id} disagree in length: {lengths}")
        if not (np.isfinite(line["boxes"]).all() and np.isfinite(line["scores"]).all()):
            raise DataError(f"predictions of image {image_id} hold NaN or infinity")
        if category_ids is not None:
            line["category_ids"] = [int(category) for category in category_ids]
        self._write_line(line)
        self.done.add(image_id)

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._stream.closed:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_line(self, values: dict[str, Any]) -> None:
        self._stream.write(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        self._stream.flush()


def merge_parts(path: str | Path) -> None:
    """Join the parts that several processes wrote into one file and remove them.

    Call it on one process, after all have closed their writers. Images in more than one part
    (a sampler pads its last round) are written once.
    """
    path = Path(path)
    parts = [file for file in _files(path) if file != path]
    if not parts:
        return
    header = read_header(parts[0])
    with PredictionWriter(path, header) as writer:
        # the writer counts parts as done, which is what is to be copied here
        writer.done = {image.image_id for image in _lines(path)}
        for part in parts:
            for image in _lines(part):
                writer.write(
                    image.image_id, image.boxes, image.scores, image.labels, image.category_ids
                )
    for part in parts:
        part.unlink()


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
    """The images of a prediction file and of its unmerged parts, one at a time, each once.

    Raises:
        DataError: a line cannot be read; the message names file and line. A torn last line,
            left by a killed program, is passed over.
    """
    seen: set[int] = set()
    files = _files(Path(path))
    if not files:
        raise DataError(f"cannot read {path}: no such file")
    for file in files:
        for image in _lines(file):
            if image.image_id not in seen:
                seen.add(image.image_id)
                yield image


def read_predictions(path: str | Path) -> tuple[PredictionHeader, list[ImagePredictions]]:
    """Header and all images of a prediction file."""
    files = _files(Path(path))
    if not files:
        raise DataError(f"cannot read {path}: no such file")
    return read_header(files[0]), list(iter_predictions(path))


def is_prediction_file(path: str | Path) -> bool:
    """Whether the file starts with a header of this format."""
    try:
        with Path(path).open("rb") as stream:
            return f'"format":"{FORMAT}"'.encode() in stream.readline(4096).replace(b" ", b"")
    except OSError:
        return False


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.part{rank}")


def _files(path: Path) -> list[Path]:
    parts = sorted(path.parent.glob(f"{path.name}.part*"))
    return [path, *parts] if path.exists() else parts


def _prepare_resume(path: Path, header: PredictionHeader, repair: bool) -> set[int]:
    """Image ids of an existing file; its torn last line is cut off if ``repair``."""
    with path.open("rb") as stream:
        first = stream.readline()
    if not first.endswith(b"\n") and TORN_HEADER.startswith(first[: len(TORN_HEADER)]):
        if repair:
            os.truncate(path, 0)
        return set()
    existing = read_header(path)
    expected = PredictionHeader.from_dict(orjson.loads(orjson.dumps(header.as_dict())), "header")
    for field in dataclasses.fields(PredictionHeader):
        old, new = getattr(existing, field.name), getattr(expected, field.name)
        if old != new:
            raise ConfigError(
                f"{path} holds predictions with {field.name} = {_short(old)}, this run has "
                f"{_short(new)}; choose another --out or remove the file"
            )
    if repair:
        _cut_torn_line(path)
    return {image.image_id for image in _lines(path)}


def _cut_torn_line(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                size -= len(line)
    os.truncate(path, size)


def _lines(path: Path) -> Iterator[ImagePredictions]:
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 or not line.endswith(b"\n"):
                continue
            yield _parse_image(_parse(line, f"{path}:{number}"), f"{path}:{number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{where} must be a JSON object, not {type(values).__name__}")
    return values


def _parse_image(values: dict[str, Any], where: str) -> ImagePredictions:
    for field in ("image_id", "boxes", "scores", "labels"):
        if field not in values:
            raise DataError(f"{where} has no field {field!r}")
    image = ImagePredictions(
        image_id=int(values["image_id"]),
        boxes=np.asarray(values["boxes"], np.float32).reshape(-1, 4),
        scores=np.asarray(values["scores"], np.float32),
        labels=np.asarray(values["labels"], np.int64),
        category_ids=tuple(values["category_ids"]) if "category_ids" in values else None,
    )
    if not len(image.boxes) == len(image.scores) == len(image.labels):
        raise DataError(
            f"{where}: {len(image.boxes)} boxes, {len(image.scores)} scores and "
            f"{len(image.labels)} labels"
        )
    return image


def _array(values: Any, dtype: type) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.ascontiguousarray(np.asarray(values), dtype=dtype)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
