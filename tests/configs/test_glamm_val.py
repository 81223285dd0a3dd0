"""Evaluations of GLaMM: what they read, ask, and make of a model that is always right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.views import ViewSettings
from llmdet.engine.conversations import share_settings
from llmdet.engine.settings import check_settings
from llmdet.registry import DATASETS
from llmdet.testing.mask_benchmarks import MASK_WRITERS, write_mask_miniature

CONFIGS = Path(__file__).parents[2] / "configs" / "glamm" / "val"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
MODELS_OF_EACH = ("", "_siglip_qwen2.5_0.5b", "_infer_7b")
#: Numbers that must be the best possible where every answer is right.
PERFECT = {
    "gcg": [
        *(f"{split}/gcg/{name}" for split in ("val", "test") for name in ("mIoU", "mask_recall")),
        *("test/gcg/caption.CIDEr", "val/gcg/mask_AP.AP50", "test/gcg/strict.mIoU"),
    ],
    "refcoco_masks": ["refcoco_val/res/cIoU", "refcoco+_testA/res/gIoU", "refcocog_test/res/cIoU"],
    "refcocog_captions": ["caption/CIDEr"],
    "vg_captions": ["caption/CIDEr"],
}


class Viewed:
    """As a model with two towers, without them."""

    @staticmethod
    def view_settings():
        return {"clip": ViewSettings((28, 28))}


def test_every_benchmark_has_a_config_of_each_model():
    assert set(PERFECT) == set(MASK_WRITERS)
    assert set(NAMES) == {f"{name}{model}" for name in PERFECT for model in MODELS_OF_EACH}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_right_gets_the_best_number(name, tmp_path, monkeypatch):
    benchmark = next(each for each in PERFECT if name in [f"{each}{m}" for m in MODELS_OF_EACH])
    monkeypatch.setattr(
        "llmdet.evaluation.caption.caption_scores",  # of Java
        lambda references, said: {
            "CIDEr": float(all([said[i]] == t for i, t in references.items()))
        },
    )
    values = values_of_right_answers(name, benchmark, tmp_path, monkeypatch)
    assert {key: values[key] for key in PERFECT[benchmark]} == {
        key: pytest.approx(1, abs=1e-5) for key in PERFECT[benchmark]
    }


@pytest.mark.slow  # Java starts four times
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and CIDEr need Java")
def test_captions_of_grounded_conversations_are_scored_by_their_own_programs(tmp_path, monkeypatch):
    values = values_of_right_answers("gcg", "gcg", tmp_path, monkeypatch)
    for split in ("val", "test"):
        assert values[f"{split}/gcg/caption.METEOR"] == pytest.approx(1)
        assert values[f"{split}/gcg/caption.CIDEr"] >= 0


def values_of_right_answers(name, benchmark, folder, monkeypatch):
    """What the evaluator of a config says of a miniature's right answers."""
    monkeypatch.chdir(folder)
    answers = write_mask_miniature(benchmark, folder)
    monkeypatch.setattr(
        "llmdet.evaluation.mask_runners.encode_phrases",  # of BERT
        lambda phrases, encoder: {p: [float(p == other) for other in phrases] for p in phrases},
    )
    config = Config.fromfile(CONFIGS / f"{name}.py")
    check_settings(config)
    share_settings(Viewed(), config.test_dataloader)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        evaluator = Runner.build_evaluator(None, config.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        question = grounding_of(sample).conversations[0].turns[-1].text
        assert ("overview of the picture" in question) == name.endswith("_infer_7b")
        answer = answers.pop((sample.get("benchmark_set"), sample.img_id))
        sample.pred_text, sample.pred_phrases = answer.text, list(answer.phrases)
        sample.pred_masks = list(answer.masks)
        boxes = torch.from_numpy(grounding_of(sample).regions.boxes)
        sample.pred_instances = InstanceData(
            bboxes=boxes,
            scores=torch.ones(len(boxes)),
            labels=torch.zeros(len(boxes), dtype=torch.int64),
        )
        evaluator.process([sample])
    assert not answers
    return evaluator.evaluate(len(dataset))
