"""Tests that write their predictions and continue where an earlier run was interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop

import llmdet
from llmdet.errors import ConfigError
from llmdet.evaluation.metrics import BenchmarkEvaluator, DumpPredictions
from llmdet.evaluation.metrics.samples import sample_of_row
from llmdet.evaluation.predictions import ImagePredictions, LimitPer, iter_predictions
from llmdet.models.detectors.dino import DINODetector
from llmdet.models.language.language_model import default_dtype
from llmdet.models.quirks import Quirks
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.prompts.noun_phrases import choose_method
from llmdet.registry import LOOPS, MODELS
from llmdet.utils.config import leaf_datasets
from llmdet.utils.construct import construct

logger = logging.getLogger(__name__)

ImageKey = tuple[str | None, int]  # name of its set, image id

#: Settings of a model that its predictions do not depend on.
TRAINING_ONLY = ("train_cfg", "init_cfg", "dn_cfg", "freeze_backbone", "freeze_lm", "tuning")
#: Settings of a data set that say where it lies and how it is read, and its classes and
#: candidates, which the header names apart.
PLACES = (
    *("data_root", "data_prefix", "backend_args", "lazy_init", "serialize_data", "metainfo"),
    *("candidates", "picture_folders"),
)
#: Weights of transformers' folders before safetensors.
_PICKLED = "pytorch_model*.bin"


def write_predictions(config: Config, out_file: str) -> None:
    """Let the test of ``config`` write a prediction file, in place (``--out``).

    A file of another model or protocol is refused when the test starts. A benchmark of several
    sets gets a file for each, ``SET.jsonl`` in a folder named as ``out_file`` without suffix.

    Raises:
        ConfigError: ``out_file`` is no ``.jsonl`` name.
    """
    if not out_file.endswith(".jsonl"):
        raise ConfigError(
            f"--out {out_file}: predictions are written as JSON lines, which any program can read "
            "safely; give a name that ends in .jsonl."
        )
    header = describe_test(config)
    evaluators, dataset = config.test_evaluator, config.test_dataloader.dataset
    if isinstance(evaluators, dict) and evaluators.get("type") == "BenchmarkEvaluator":
        folder = Path(out_file).with_suffix("")
        evaluators["dump"] = {
            name: _dump(str(folder / f"{name}.jsonl"), header, part)
            for name, part in dataset.get("sets", {}).items()
        }
    else:
        listed = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
        config.test_evaluator = [*listed, _dump(out_file, header, dataset)]
    config.test_cfg = {**config.test_cfg, "type": "ResumableTestLoop"}


def describe_test(config: Config) -> dict[str, Any]:
    """Fields of the `PredictionHeader` of a test, without what differs between data sets.

    Recorded is everything that changes a number: weights, all settings of the model with the
    defaults of its protocol and quirks spelled out, augmentation, and number formats.
    """
    augmented = "module" in config.model
    settings = plain(config.model.module if augmented else config.model)
    augmentation = {k: v for k, v in plain(config.model).items() if k != "module"}
    test_cfg, quirks = settings.pop("test_cfg", None) or {}, settings.pop("quirks", None) or {}
    limit_per, limit, dtype = None, test_cfg.get("max_per_img"), "float32"
    detector: type[DINODetector] | None = _class_of(settings["type"], DINODetector)
    if detector is not None:
        test_cfg = dataclasses.asdict(detector.settings_type.from_config(test_cfg))
        quirks = dataclasses.asdict(construct(Quirks, quirks, "model.quirks"))
        limit_per, limit = test_cfg.pop("limit_per"), test_cfg.pop("max_per_img")
        if "noun_phrases" in test_cfg:
            test_cfg["noun_phrases"] = choose_method(test_cfg["noun_phrases"])
        dtype = test_cfg.pop("dtype")
        test_cfg.pop("chunks_per_forward", None)  # how much runs at once changes no number
    elif answers_in_words(config):
        dtype = settings["lmm"].get("dtype") or default_dtype()
    if augmented and augmentation["type"] != "GroundingTTAModel":
        limit_per, limit = "image", augmentation.get("tta_cfg", {}).get("max_per_img")
    elif augmented and limit_per != "chunk":
        limit = augmentation.get("max_per_img", limit)
    return {
        "model": Path(config.filename or "config").stem,
        "weights_hash": weights_hash(config.load_from),
        "classes": detector.class_names if detector else (),
        "chunk_size": None if answers_in_words(config) else test_cfg.pop("chunked_size", -1),
        "limit_per": limit_per,
        "max_per_image": limit,
        "protocol": {
            "llmdet": llmdet.__version__,
            "test_cfg": test_cfg,
            "quirks": quirks,
            "test_time_augmentation": augmentation if augmented else None,
            "dtype": "float16" if config.get("test_cfg", {}).get("fp16") else dtype,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "model": {k: v for k, v in settings.items() if k not in TRAINING_ONLY},
        },
    }


def answers_in_words(config: Config) -> bool:
    """Whether the model of a config is one whose predictions its language model makes."""
    return _class_of(config.model.get("type"), RegionLMM) is not None


def _class_of(kind: Any, wanted: type) -> Any:
    """What a config's ``type`` stands for, None where it is no class of this kind."""
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return kind if inspect.isclass(kind) and issubclass(kind, wanted) else None


def _dump(out_file: str, header: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Config of the metric that writes the predictions of a data set."""
    data = [
        {
            **{k: v for k, v in plain(leaf).items() if k not in PLACES},
            "ann_file": Path(leaf.get("ann_file", "")).name,
        }
        for leaf in leaf_datasets(dataset)
    ]
    protocol = {**header["protocol"], "data": data[0] if len(data) == 1 else data}
    header = {**header, "protocol": protocol}
    return {"type": "DumpPredictions", "out_file": out_file, "header": header}


def plain(settings: Any) -> dict[str, Any]:
    """A config's settings as builtin containers."""
    return settings.to_dict() if isinstance(settings, ConfigDict) else dict(settings)


def weights_hash(path: str | None) -> str | None:
    """sha256 of a weight file, or of all weight files of a folder; the name itself of a hub id.

    Of a folder these are its safetensors or, where it has none, its ``pytorch_model*.bin``.
    """
    if path is None:
        return None
    location = Path(path).expanduser()
    files = [location]
    if location.is_dir():
        files = sorted(location.glob("*.safetensors")) or sorted(location.glob(_PICKLED))
    if not files or not all(file.is_file() for file in files):
        return f"hub:{path}"
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
            sample_of_row(self._stored[key], sample, self._limit_per)
            for sample, key in zip(samples, keys, strict=True)
        ]
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )

    def _read_stored(self) -> dict[ImageKey, ImagePredictions]:
        """Predictions of runs before this one, the same on all processes."""
        before = [(*dump, set(dump[1].writer.done)) for dump in _dumps(self.evaluator)]
        barrier()  # no process predicts before all have seen what was there
        stored: dict[ImageKey, ImagePredictions] = {}
        self._limit_per: LimitPer | None = None
        for name, metric, done in before:
            self._limit_per = metric.header.limit_per
            if done:
                images = iter_predictions(metric.out_file)
                stored |= {
                    (name, image.image_id): image for image in images if image.image_id in done
                }
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
