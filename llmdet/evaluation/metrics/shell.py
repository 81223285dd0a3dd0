"""The one mmengine metric: it gathers what a reducer kept and calls an evaluation function."""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch.distributed as dist
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path

from llmdet.errors import ConfigError
from llmdet.evaluation.ground_truth import GroundTruth, labels_to_categories
from llmdet.evaluation.metrics.reducers import Reducer
from llmdet.evaluation.metrics.samples import row_of_sample
from llmdet.evaluation.topk import Columns, join
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

IN_SAMPLES = ""  # in place of ann_file, where ground truth comes with the samples


@dataclasses.dataclass(frozen=True)
class Collected:
    """What all processes kept of a data set, ordered by image, and what it is judged by."""

    columns: Columns  # of the reducer
    ann_file: str  # local path of the annotations
    meta: Mapping[str, Any]  # meta information of the data set

    def categories(self, truth: GroundTruth) -> np.ndarray:
        """Category id of each label: [K]; those of the annotations if classes have no names."""
        names = self.meta.get("category_names") or self.meta.get("classes")
        return labels_to_categories(names, truth) if names else truth.category_ids


Evaluation = Callable[[Collected], dict[str, float]]


class MetricShell(BaseMetric):
    """Collects predictions by a reducer and computes metrics by a function.

    A registered metric is a subclass whose constructor names its settings and passes on the two.
    An image that arrives twice (samplers repeat images to fill the last round) counts once. What
    is judged is ordered by image id, so that results do not depend on the number of processes.

    Args:
        ann_file: annotations, read when results are computed, on the main process alone.
        reducer: what is kept of every image.
        evaluation: metric values by name, without prefix, of what all processes kept.
        backend_args: mmengine's file backend of ``ann_file``.
        collect_device: ``cpu`` gathers through gloo, ``gpu`` through the default process group.
        prefix: first part of the metric names.
    Raises:
        ConfigError: a setting is unknown, or ``ann_file`` does not exist.
    """

    #: Settings of mmdet's metrics that some of ours do not have -> what to do instead.
    refused: ClassVar[Mapping[str, str]] = {
        "format_only": "tools/test.py --out writes the predictions",
        "outfile_prefix": "tools/test.py --out writes the predictions",
    }

    def __init__(
        self,
        ann_file: str | None,
        reducer: Reducer,
        evaluation: Evaluation,
        /,
        *,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        **unknown: Any,
    ) -> None:
        self._refuse(unknown)
        super().__init__(collect_device=collect_device, prefix=prefix)
        name = type(self).__name__
        if ann_file is None:
            raise ConfigError(f"{name} needs ann_file: ground truth is read from annotations only")
        if ann_file == IN_SAMPLES and backend_args is not None:
            raise ConfigError(f"{name} reads no file: ground truth comes with the samples")
        if ann_file != IN_SAMPLES and backend_args is None and not Path(ann_file).exists():
            raise ConfigError(f"{name}: ann_file {ann_file} does not exist")
        self.ann_file = str(ann_file)
        self.backend_args = backend_args
        self._reducer = reducer
        self._evaluation = evaluation
        self._seen: set[int] = set()

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Take the predictions of one batch.

        Args:
            data_batch: not used.
            data_samples: see :func:`row_of_sample`.
        """
        for sample in data_samples:
            image_id = int(sample["img_id"])
            if image_id not in self._seen:
                self._seen.add(image_id)
                self._reducer.add(row_of_sample(sample), sample)

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather the columns of all processes and compute the metrics on the main one.

        Args:
            size: number of images of the data set, named in a warning if fewer arrived.
        """
        seen = np.fromiter(self._seen, np.int64, len(self._seen))
        gathered = gather_to_main((seen, self._reducer.columns()), self.collect_device)
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
            first = f"{self.prefix}/" if self.prefix else ""
            outcome = [{f"{first}{key}": value for key, value in metrics.items()}]
        broadcast_object_list(outcome)
        self._seen = set()
        self._reducer.clear()
        return outcome[0]

    def compute_metrics(self, results: Columns) -> dict[str, float]:
        """Metrics of the gathered columns."""
        meta = self.dataset_meta or {}
        if self.ann_file == IN_SAMPLES:
            return self._evaluation(Collected(results, self.ann_file, meta))
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            return self._evaluation(Collected(results, str(path), meta))

    @classmethod
    def _refuse(cls, unknown: Mapping[str, Any]) -> None:
        """Raise a ConfigError for the first setting that the metric does not have."""
        for name in unknown:
            if name in cls.refused:
                raise ConfigError(f"{cls.__name__}: {name} is not supported; {cls.refused[name]}")
            constructors = (cls.__init__, MetricShell.__init__)
            known = dict.fromkeys(
                parameter.name
                for constructor in constructors
                for parameter in list(inspect.signature(constructor).parameters.values())[1:]
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            )
            raise ConfigError(
                f"{cls.__name__} has no setting {name!r}; {did_you_mean(name, known)}"
            )


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
