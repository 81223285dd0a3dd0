"""Writing predictions while testing, for evaluation without the model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric

from llmdet.errors import ConfigError
from llmdet.evaluation.metrics.samples import row_of_sample
from llmdet.evaluation.prediction_writer import PredictionWriter, merge_parts
from llmdet.evaluation.predictions import PredictionHeader
from llmdet.registry import METRICS

#: What a data set's meta information says of labels.
NAMES = ("classes", "category_names")


@METRICS.register_module()
class DumpPredictions(BaseMetric):
    """Appends every image to a prediction file that ``tools/evaluate.py`` reads.

    Images already in the file stay as they are, so an interrupted test run continues. Give
    ``header`` either the fields of `PredictionHeader` or one built from them.

    Args:
        out_file: path of the JSONL file.
        header: what made the predictions; the names of the classes, where it has none, and what
            the ``protocol`` of the data set's meta information says, are added.
        collect_device: accepted for mmengine; nothing is collected.
        prefix: accepted for mmengine; no metric is reported.
    Raises:
        ConfigError: ``out_file`` is no ``.jsonl`` name or holds predictions of another model.
    """

    default_prefix = "dump"

    def __init__(
        self,
        out_file: str,
        header: PredictionHeader | Mapping[str, Any],
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not str(out_file).endswith(".jsonl"):
            raise ConfigError(f"DumpPredictions: out_file must end in .jsonl, not {out_file!r}")
        if not isinstance(header, PredictionHeader):
            header = PredictionHeader(**header)
        self.out_file = str(out_file)
        self.header = header
        self._writer: PredictionWriter | None = None

    @property
    def writer(self) -> PredictionWriter:
        """The open file; opened when the first image arrives and the class names are known."""
        if self._writer is None:
            meta = self.dataset_meta or {}
            if self.header.classes:  # the model's labels are not those of the data set
                meta = {key: value for key, value in meta.items() if key not in NAMES}
            header = dataclasses.replace(
                self.header,
                classes=tuple(meta.get("classes") or self.header.classes),
                category_names=tuple(meta.get("category_names") or self.header.category_names),
                protocol={**self.header.protocol, **meta.get("protocol", {})},
            )
            self._writer = PredictionWriter(self.out_file, header, get_rank(), get_world_size())
        return self._writer

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Write the predictions of one batch."""
        for sample in data_samples:
            self.writer.write(row_of_sample(sample))

    def evaluate(self, size: int) -> dict[str, float]:
        """Close the file; the main process joins the parts of all processes."""
        self.writer.close()
        self._writer = None
        barrier()
        if is_main_process():
            merge_parts(self.out_file)
        barrier()
        return {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Nothing is computed."""
        return {}
