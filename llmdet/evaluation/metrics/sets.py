"""Benchmarks of several sets: one metric per set, and their mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from llmdet.errors import ConfigError, DataError
from llmdet.registry import EVALUATOR, METRICS

SET_KEY = "benchmark_set"  # meta field that BenchmarkSets writes into every sample
COCO_WEIGHT = 0.45  # share of COCO AP that is expected on COCO-O (Mao et al. 2023, section 3.2)


@EVALUATOR.register_module()
class BenchmarkEvaluator(Evaluator):
    """Judges every sample by the metric of its set; goes with the data set `BenchmarkSets`.

    Metric names start with the set's name. A set whose metric has a ``prefix`` of its own keeps
    it after the name of the set.

    Args:
        metrics: metric config by name of the set.
        mean_of: last part of the names of a metric whose plain mean over the sets is reported as
            ``mean/NAME``.
        coco_ap: AP of the same model on COCO (0..1); adds ``effective_robustness``, the mean
            less 0.45 times it, which COCO-O reports.
        dump: config of `DumpPredictions` by name of the set.
    Raises:
        ConfigError: ``mean_of`` is missing where ``coco_ap`` is given.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Any]],
        mean_of: str | None = None,
        coco_ap: float | None = None,
        dump: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if coco_ap is not None and mean_of is None:
            raise ConfigError("BenchmarkEvaluator: coco_ap needs mean_of")
        self.by_set = {name: [METRICS.build(dict(config))] for name, config in metrics.items()}
        self.mean_of = mean_of
        self.coco_ap = coco_ap
        for name, config in (dump or {}).items():
            self.by_set[name].append(METRICS.build(dict(config)))
        # dumps are not among the evaluator's metrics: image ids are those of a set
        super().__init__([parts[0] for parts in self.by_set.values()])

    @property
    def dataset_meta(self) -> Any:
        """Meta information by name of the set."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        sets = dataset_meta.get("sets")
        if sets is None or set(sets) != set(self.by_set):
            raise ConfigError(
                "BenchmarkEvaluator and its data set disagree: metrics are for "
                f"{', '.join(self.by_set)}; the data set must be of type BenchmarkSets with these"
            )
        self._dataset_meta = dataset_meta
        for name, parts in self.by_set.items():
            for metric in parts:
                metric.dataset_meta = sets[name]

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """Hand every sample to the metrics of its set."""
        for sample in data_samples:
            record = sample.to_dict() if isinstance(sample, BaseDataElement) else sample
            if record.get(SET_KEY) not in self.by_set:
                raise DataError(
                    f"image {record.get('img_id')} belongs to no set ({record.get(SET_KEY)!r}); "
                    "the data set must be of type BenchmarkSets"
                )
            for metric in self.by_set[record[SET_KEY]]:
                metric.process(None, [record])

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics of every set and their mean.

        Args:
            size: number of images of all sets.
        """
        results: dict[str, float] = {}
        averaged = []
        for name, parts in self.by_set.items():
            sizes = self._dataset_meta["sets"][name] if self._dataset_meta else {}
            for metric in parts:
                values = metric.evaluate(sizes.get("size", 0))
                averaged += [v for k, v in values.items() if k.split("/")[-1] == self.mean_of]
                results |= {f"{name}/{key}": value for key, value in values.items()}
        if averaged:
            mean = sum(averaged) / len(averaged)
            results[f"mean/{self.mean_of}"] = mean
            if self.coco_ap is not None:
                results["effective_robustness"] = mean - COCO_WEIGHT * self.coco_ap
        return results
