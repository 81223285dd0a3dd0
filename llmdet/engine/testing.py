"""Tests that write their predictions and continue where an earlier run was interrupted."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop
from mmengine.structures import InstanceData

from llmdet.errors import ConfigError
from llmdet.evaluation.metrics import BenchmarkEvaluator, DumpPredictions
from llmdet.evaluation.predictions import ImagePredictions, iter_predictions
from llmdet.registry import LOOPS

logger = logging.getLogger(__name__)

ImageKey = tuple[str | None, int]  # name of its set, image id


def write_predictions(config: Config, out_file: str) -> None:
    """Let the test of ``config`` write a prediction file, in place (``--out``).

    The file's header records the config's name, the hash of the weights and the test settings; a
    file of another model or protocol is refused when the test starts.

    Raises:
        ConfigError: ``out_file`` is no ``.jsonl`` name.
    """
    if not out_file.endswith(".jsonl"):
        raise ConfigError(
            f"--out {out_file}: predictions are written as JSON lines, which any program can read "
            "safely; give a name that ends in .jsonl."
        )
    model = config.model.get("module", config.model)
    test_cfg = dict(model.get("test_cfg", {}))
    header = {
        "model": Path(config.filename or "config").stem,
        "weights_hash": weights_hash(config.load_from),
        "chunk_size": test_cfg.pop("chunked_size", -1),
        "protocol": {**test_cfg, "test_time_augmentation": "module" in config.model},
    }
    evaluators = config.test_evaluator
    dump = {"type": "DumpPredictions", "out_file": out_file, "header": header}
    if isinstance(evaluators, dict) and evaluators.get("type") == "BenchmarkEvaluator":
        evaluators["dump"] = dump  # a file for each of its sets
    else:
        listed = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
        config.test_evaluator = [*listed, dump]
    config.test_cfg = {**config.test_cfg, "type": "ResumableTestLoop"}


def weights_hash(path: str) -> str | None:
    """sha256 of a weight file, or of all weight files of a folder; None for a hub id."""
    location = Path(path).expanduser()
    files = sorted(location.glob("*.safetensors")) if location.is_dir() else [location]
    if not all(file.is_file() for file in files):
        return None
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@LOOPS.register_module()
class ResumableTestLoop(TestLoop):
    """mmengine's test loop that does not repeat images which a prediction file already has.

    Their stored predictions go to the metrics in place of the model's, so that the results are
    those of an uninterrupted run.
    """

    def run(self) -> dict[str, float]:
        """Test; returns the metrics."""
        self._stored = self._read_stored()
        if self._stored:
            logger.info("%d images were predicted before and are not repeated", len(self._stored))
        return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Mapping[str, Any]) -> None:
        """Predict one batch, or replay it if all its images are stored."""
        samples = _samples(data_batch)
        keys = [(sample.get("benchmark_set"), int(sample.img_id)) for sample in samples]
        if not all(key in self._stored for key in keys):
            super().run_iter(idx, data_batch)
            return
        outputs = [
            _replayed(sample, self._stored[key]) for sample, key in zip(samples, keys, strict=True)
        ]
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )

    def _read_stored(self) -> dict[ImageKey, ImagePredictions]:
        stored: dict[ImageKey, ImagePredictions] = {}
        for name, metric in _dumps(self.evaluator):
            if metric.writer.done:
                images = iter_predictions(metric.out_file)
                stored |= {(name, image.image_id): image for image in images}
        return stored


def _dumps(evaluator: Evaluator) -> Iterator[tuple[str | None, DumpPredictions]]:
    """The prediction files of an evaluator, with the name of their set where it has several."""
    groups: list[tuple[str | None, Sequence[Any]]] = [(None, evaluator.metrics)]
    if isinstance(evaluator, BenchmarkEvaluator):
        groups = list(evaluator.by_set.items())
    for name, metrics in groups:
        for metric in metrics:
            if isinstance(metric, DumpPredictions):
                yield name, metric


def _samples(data_batch: Mapping[str, Any]) -> Sequence[DetDataSample]:
    """The samples of a batch; with test-time augmentation those of the first view."""
    samples = data_batch["data_samples"]
    return samples[0] if isinstance(samples[0], (list, tuple)) else samples


def _replayed(sample: DetDataSample, stored: ImagePredictions) -> DetDataSample:
    replayed = DetDataSample(metainfo=sample.metainfo)
    if "gt_instances" in sample:  # phrase grounding takes its ground truth from the sample
        replayed.gt_instances = sample.gt_instances
    replayed.pred_instances = InstanceData(
        bboxes=torch.from_numpy(stored.boxes),
        scores=torch.from_numpy(stored.scores),
        labels=torch.from_numpy(stored.labels),
    )
    return replayed
