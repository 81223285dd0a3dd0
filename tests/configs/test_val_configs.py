"""Every benchmark config runs on a miniature of its data, and a perfect detector wins."""

import dataclasses
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.toy.models import tiny_bert
from llmdet.prompts.class_names import clean_class_name
from llmdet.prompts.writing import entity_names
from llmdet.registry import DATASETS
from llmdet.testing.benchmarks import WRITERS, write_miniature
from llmdet.testing.models import tiny_grounding_dino
from llmdet.utils.config import load_config

ROOT = Path(__file__).parents[2] / "configs"
VAL = ROOT / "val"
CONFIGS = sorted(path.stem for path in VAL.glob("*.py"))
RUN_WITH_A_MODEL = [  # the others differ in size, prompts or files alone
    name
    for name in CONFIGS
    if name.endswith("_t") and "_real_" not in name and not name.startswith(("odinw35", "lvis_val"))
]
PERFECT = {  # a number that must be the best possible where every answer is right
    "lvis_minival": "lvis_fixed_ap/AP",
    "lvis_val": "lvis_fixed_ap/AP",
    "coco": "coco/bbox_mAP",
    "coco_o": "mean/bbox_mAP",
    "odinw13": "mean/bbox_mAP",
    "odinw35": "mean/bbox_mAP",
    "refexp": "refcocog_test/refexp/refcocog_precision@1",
    "flickr30k": "test/flickr30k/Recall@1",
    "d3": "abs/AP",
    "ovdeval": "mean/AP",
    "omnilabel": "omnilabel/AP hm(descr,categ)",
}
ALSO_PERFECT = {
    "refexp": ("grefcoco_val/grefcoco/F1_score", "val/refexp/refcoco_precision@10"),
    "d3": ("full/AP", "pres/mAP_mid"),
    "flickr30k": ("val/flickr30k/Upper_bound",),
    "lvis_minival": ("lvis_fixed_ap/APr", "lvis_fixed_ap/APf"),
}


def benchmark_of(name):
    """What a config measures, without model and size: "d3" of "d3_real_swin_t"."""
    return name.rsplit("_swin_", 1)[0].removesuffix("_real")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_grounding_dino(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """A benchmark's name, its data set with small images, its evaluator and the answers."""
    monkeypatch.chdir(tmp_path)
    benchmark = benchmark_of(request.param)
    answers = write_miniature(benchmark, tmp_path)
    config = Config.fromfile(VAL / f"{request.param}.py")
    datasets = config.test_dataloader.dataset
    for dataset in datasets.sets.values() if "sets" in datasets else [datasets]:
        assert dataset.pipeline[1].type == "FixScaleResize"
        dataset.pipeline[1].scale = (64, 96)
        dataset.serialize_data = False  # mmengine collects garbage for each, half a second long
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(datasets)
        evaluator = Runner.build_evaluator(None, config.test_evaluator)
        evaluator.dataset_meta = dataset.metainfo
        yield benchmark, dataset, evaluator, answers


def answer(sample, answers):
    """The sample with what is true as its prediction."""
    right = answers[sample.get("benchmark_set"), sample.img_id]
    names = entity_names(grounding_of(sample).prompt)
    labels = [names.index(clean_class_name(n)) if isinstance(n, str) else n for _, n in right]
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([box for box, _ in right]),
        scores=torch.full((len(right),), 0.9),
        labels=torch.tensor(labels),
    )
    return sample


def test_every_config_has_a_miniature():
    assert set(map(benchmark_of, CONFIGS)) == set(WRITERS) == set(PERFECT)


@pytest.mark.parametrize("run", CONFIGS, indirect=True)
def test_a_perfect_detector_gets_the_best_number(run):
    benchmark, dataset, evaluator, answers = run
    for index in range(len(dataset)):
        evaluator.process([answer(dataset[index]["data_samples"], answers)])
    values = evaluator.evaluate(len(dataset))
    for name in (PERFECT[benchmark], *ALSO_PERFECT.get(benchmark, ())):
        assert values[name] == pytest.approx(1, abs=1e-5), name


@pytest.mark.parametrize("run", RUN_WITH_A_MODEL, indirect=True)
def test_a_model_runs_through_every_benchmark(run, model, monkeypatch):
    benchmark, dataset, evaluator, _ = run
    limit = "chunk" if benchmark.startswith("lvis") else "image"
    monkeypatch.setattr(model, "test_cfg", dataclasses.replace(model.test_cfg, limit_per=limit))
    for index in range(min(len(dataset), 3)):
        with torch.no_grad():
            outputs = model.test_step(pseudo_collate([dataset[index]]))
        evaluator.process(outputs)
    values = evaluator.evaluate(len(dataset))
    assert all(-1 <= value <= 1 for value in values.values())
    assert PERFECT[benchmark] in values or benchmark in ("refexp", "flickr30k")


def texts(part):
    """Every text inside a config."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, (dict, list, tuple)):
        for value in part.values() if isinstance(part, dict) else part:
            yield from texts(value)


@pytest.mark.parametrize("name", CONFIGS)
def test_data_root_moves_images_and_annotations(name):
    config = load_config(VAL / f"{name}.py", {"data_root": "/elsewhere/"})
    read = list(texts([config.test_dataloader, config.test_evaluator]))
    assert [text for text in read if text.startswith("data/")] == []
    assert any(text.startswith("/elsewhere/") for text in read)


EVALUATED = [path for folder in (".", "val", "quickstart") for path in (ROOT / folder).glob("*.py")]


@pytest.mark.parametrize("path", EVALUATED, ids=lambda path: path.stem)
def test_detections_are_limited_per_prompt_where_fixed_ap_is_measured_and_nowhere_else(path):
    config = load_config(path)
    for stage in ("val_evaluator", "test_evaluator"):
        fixed = any("FixedAP" in text for text in texts(config.get(stage)))
        limit = config.model.get("test_cfg", {}).get("limit_per", "image")
        assert limit == ("chunk" if fixed else "image"), stage
