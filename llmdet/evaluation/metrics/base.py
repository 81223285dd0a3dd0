"""What all metrics share: collecting arrays per image and gathering them across processes."""

import inspect
import json
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path

from llmdet.errors import ConfigError
from llmdet.evaluation.detections import Detections
from llmdet.evaluation.topk import join
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

Columns = tuple[np.ndarray, ...]


class DetectionMetric(BaseMetric):
    """Collects image ids, labels, boxes, scores and their places in the image as arrays.

    What else a metric keeps of an image it says in ``reset``, ``collect`` and ``arrays``.

    An image that arrives twice (samplers repeat images to fill the last round) counts once. The
    detections are ordered by image id before they are judged, so that results do not depend on
    the number of processes.

    Args:
        ann_file: annotations, read when results are computed, on the main process alone.
        backend_args: mmengine's file backend of ``ann_file``.
        collect_device: ``cpu`` gathers through gloo, ``gpu`` through the default process group.
        prefix: first part of the metric names.
    Raises:
        ConfigError: a setting is unknown or contradictory, or ``ann_file`` does not exist.
    """

    #: Settings of mmdet's metrics that some of ours do not have -> what to do instead.
    reasons: ClassVar[Mapping[str, str]] = {
        "format_only": "tools/test.py --out writes the predictions",
        "outfile_prefix": "tools/test.py --out writes the predictions",
    }
    #: Ground truth comes with the samples: there is no ``ann_file``.
    truth_in_samples: ClassVar[bool] = False

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        **unknown: Any,
    ) -> None:
        self._refuse(unknown)
        super().__init__(collect_device=collect_device, prefix=prefix)
        name = type(self).__name__
        if ann_file is None and not self.truth_in_samples:
            raise ConfigError(f"{name} needs ann_file: ground truth is read from annotations only")
        if self.truth_in_samples and (ann_file is not None or backend_args is not None):
            raise ConfigError(f"{name} reads no ann_file: ground truth comes with the samples")
        if ann_file is not None and backend_args is None and not Path(ann_file).is_file():
            raise ConfigError(f"{name}: ann_file {ann_file} does not exist")
        self.ann_file = str(ann_file or "")
        self.backend_args = backend_args
        self._seen: set[int] = set()
        self.reset()

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Take the predictions of one batch.

        Args:
            data_batch: not used.
            data_samples: each with ``img_id`` and ``pred_instances`` (bboxes xyxy in pixels of
                the original image, scores, labels).
        """
        for sample in data_samples:
            image_id = int(sample["img_id"])
            if image_id in self._seen:
                continue
            self._seen.add(image_id)
            instances = sample["pred_instances"]
            self.collect(
                image_id,
                to_numpy(instances["bboxes"], torch.float32).reshape(-1, 4),
                to_numpy(instances["scores"], torch.float32).reshape(-1),
                to_numpy(instances["labels"], torch.int64).reshape(-1),
                sample,
            )

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the arrays of all processes and compute the metrics on the main one.

        Args:
            size: number of images of the data set, named in a warning if fewer arrived.
        """
        seen = np.fromiter(self._seen, np.int64, len(self._seen))
        gathered = gather_to_main((seen, self.arrays()), self.collect_device)
        outcome: list[Any] = [None]
        if gathered is not None:
            images, columns = merge_ranks(gathered)
            if len(images) < size:
                logger.warning(
                    "%s: predictions of %d images, the data set has %d",
                    type(self).__name__,
                    len(images),
                    size,
                )
            metrics = self.compute_metrics(columns)
            outcome = [{self._named(key): value for key, value in metrics.items()}]
        broadcast_object_list(outcome)
        self._seen = set()
        self.reset()
        return outcome[0]

    def compute_metrics(self, results: Columns) -> dict[str, float]:
        """Metrics of the gathered columns."""
        if not self.ann_file:
            return self.score(results, "")
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            return self.score(results, path)

    def reset(self) -> None:
        """Forget all collected predictions."""
        self._rows = ImageColumns()

    def collect(
        self,
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        sample: Mapping[str, Any],
    ) -> None:
        """Keep what is needed of one image: boxes [N, 4] float32, scores, labels [N]."""
        self._rows.add(image_id, boxes, scores, labels)

    def arrays(self) -> Columns:
        """Image ids, labels, boxes, scores, places: what this process holds."""
        return self._rows.arrays()

    @abstractmethod
    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        """Metric values by name, without prefix, of all images ordered by id."""

    def _named(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @classmethod
    def _refuse(cls, unknown: Mapping[str, Any]) -> None:
        """Raise a ConfigError for the first setting that the metric does not have."""
        for name in unknown:
            if name in cls.reasons:
                raise ConfigError(f"{cls.__name__}: {name} is not supported; {cls.reasons[name]}")
            hint = did_you_mean(name, cls._settings())
            raise ConfigError(f"{cls.__name__} has no setting {name!r}; {hint}")

    @classmethod
    def _settings(cls) -> list[str]:
        """Names of the settings of this metric and of what it inherits from."""
        constructors = [
            vars(base)["__init__"]
            for base in cls.__mro__[: cls.__mro__.index(DetectionMetric) + 1]
            if "__init__" in vars(base)
        ]
        names = dict.fromkeys(
            name
            for constructor in constructors
            for name, parameter in inspect.signature(constructor).parameters.items()
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        )
        return list(names)


class CategoryMetric(DetectionMetric):
    """A metric of boxes with categories: one that COCO results can be written for.

    Args:
        ann_file: see :class:`DetectionMetric`.
        format_only: write the predictions as COCO results and compute nothing.
        outfile_prefix: if given, results are written to ``PREFIX.bbox.json``.
        **common: of :class:`DetectionMetric`.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(ann_file, **common)
        if format_only and outfile_prefix is None:
            raise ConfigError(
                f"{type(self).__name__}: format_only writes to outfile_prefix, which is not set"
            )
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix

    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        """Metrics; empty if only a file was to be written."""
        truth = self.read_truth(ann_file)
        classes = tuple((self.dataset_meta or {}).get("classes") or ())
        detections = self.to_detections(columns, truth, classes)
        if self.outfile_prefix is not None:
            write_coco_results(f"{self.outfile_prefix}.bbox.json", detections)
        return {} if self.format_only else self.summarize(truth, detections)

    @abstractmethod
    def read_truth(self, path: str) -> Any:
        """The annotations."""

    @abstractmethod
    def to_detections(self, columns: Columns, truth: Any, classes: tuple[str, ...]) -> Detections:
        """The gathered columns as detections with category ids."""

    @abstractmethod
    def summarize(self, truth: Any, detections: Detections) -> dict[str, float]:
        """Metric values by name, without prefix."""


class ImageColumns:
    """Columns of detections, appended image by image."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []

    def add(self, image_id: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
        """Append the detections of one image."""
        images = np.full(len(scores), image_id, np.int64)
        places = np.arange(len(scores), dtype=np.int32)
        self._parts.append((images, labels.astype(np.int64), boxes, scores, places))

    def arrays(self) -> Columns:
        """All rows as columns."""
        empty = (
            np.zeros(0, np.int64),
            np.zeros(0, np.int32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int32),
        )
        return join([empty, *self._parts])


def to_numpy(value: Any, dtype: torch.dtype) -> np.ndarray:
    """A tensor, mmdet box container or array on the CPU with the given type."""
    value = getattr(value, "tensor", value)
    return torch.as_tensor(value).detach().to("cpu", dtype).numpy()


def gather_to_main(payload: Any, collect_device: str) -> list[Any] | None:
    """Payloads of all ranks on the main process, None elsewhere."""
    if get_world_size() == 1:
        return [payload]
    group = dist.new_group(backend="gloo") if collect_device == "cpu" else None
    is_main = get_rank() == 0
    gathered: list[Any] | None = [None] * get_world_size() if is_main else None
    dist.gather_object(payload, gathered, dst=0, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    return gathered


def merge_ranks(gathered: list[tuple[np.ndarray, Columns]]) -> tuple[np.ndarray, Columns]:
    """Join the ranks' columns, each image from the first rank that saw it, ordered by image.

    Args:
        gathered: of each rank, the ids of the images it saw and its columns.
    Returns:
        The ids of all images, and the columns sorted by image id and place in the image.
    """
    known = np.zeros(0, np.int64)
    parts = []
    for seen, columns in gathered:
        fresh = ~np.isin(columns[0], known)
        parts.append(tuple(column[fresh] for column in columns))
        known = np.union1d(known, seen)
    columns = join(parts)
    order = np.lexsort((columns[-1], columns[0]))
    return known, tuple(column[order] for column in columns)


def label_ids(sample: Mapping[str, Any]) -> np.ndarray | None:
    """Category id of each label of an image with a label space of its own, else None.

    Such images carry ``category_ids``, or ``sent_ids`` in mmdet's DOD data set.
    """
    for name in ("category_ids", "sent_ids"):
        if sample.get(name) is not None:
            return np.asarray(sample[name], np.int64)
    return None


def write_coco_results(path: str, detections: Detections) -> None:
    """Write detections as a COCO results file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows = zip(
        detections.image_ids.tolist(),
        detections.category_ids.tolist(),
        detections.xywh().tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    records = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in rows
    ]
    Path(path).write_text(json.dumps(records), encoding="utf-8")
