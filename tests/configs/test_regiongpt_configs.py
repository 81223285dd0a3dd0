"""Configs of RegionGPT: sizes as published, and what each stage trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import ConcatDataset

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.datasets.views import ViewSettings
from llmdet.engine.conversations import share_settings
from llmdet.engine.settings import check_settings
from llmdet.prompts.region_tasks import choice
from llmdet.registry import DATA_SAMPLERS, DATASETS, MODELS
from llmdet.testing.published import CLIP_LARGE_336, QWEN_05B, VICUNA_7B
from llmdet.testing.region_benchmarks import REGION_WRITERS, write_region_miniature
from llmdet.utils.config import load_config

STAGE_NAMES = ("pretrain", "finetune")
CONFIGS = Path(__file__).parents[2] / "configs" / "regiongpt"
STAGES = sorted(path.stem for stage in STAGE_NAMES for path in CONFIGS.glob(f"{stage}*.py"))
EVALUATIONS = sorted({path.stem for path in CONFIGS.glob("*.py")} - set(STAGES))
#: A number that must be the best possible where every answer is right.
PERFECT = {
    "coco_classification": "coco_classification/AP",
    "refcocog_choice": "test/region_choice/accuracy",
    "refcocog_captions": "caption/CIDEr",
    "pope": "adversarial/pope/f1",
}
#: Sizes of the models that the configs name, as their own config.json say them.
PUBLISHED = {
    "openai/clip-vit-large-patch14-336": CLIP_LARGE_336,
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "lmsys/vicuna-7b-v1.5": VICUNA_7B,
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN_05B,
    "Qwen/Qwen2.5-1.5B-Instruct": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
#: Parameters as published: of CLIP's image encoder, LLaMA 7B and Qwen2.5.
COUNTS = {
    "openai/clip-vit-large-patch14-336": 303_507_456,
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


def build(name, qwen):
    """The config's model without weights, the names of its two models, and its other settings."""
    config = Config.fromfile(CONFIGS / f"{name}.py")
    check_settings(config)
    settings = config.model.to_dict()
    (tower,) = settings["towers"].values()
    names = tower["tower"]["model"], settings["lmm"]["model"]
    tower["tower"]["model"] = PUBLISHED[names[0]]
    settings["lmm"] |= {"model": PUBLISHED[names[1]], "tokenizer": qwen}
    with torch.device("meta"):
        return MODELS.build(settings), names, config


def test_the_documented_shares_are_one_for_each_file_of_stage_two(root, tmp_path):
    text = (root / "docs/regions.md").read_text().partition("### Shares of the tasks")[2]
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    path = tmp_path / "shares.py"
    path.write_text(snippet.replace("configs/regiongpt", str(CONFIGS)))
    loader = Config.fromfile(path).train_dataloader
    parts = ConcatDataset([range(5) for _ in loader.dataset.datasets])
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args=dict(dataset=parts, seed=0))
    batches = DATA_SAMPLERS.build(
        loader.batch_sampler, default_args=dict(sampler=sampler, batch_size=loader.batch_size)
    )
    assert len(batches) == -(-953_000 // loader.batch_size)
    assert len(next(iter(batches))) == loader.batch_size


def size(module, trained=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize("name", STAGES)
def test_sizes_are_the_published_ones_and_each_stage_trains_its_parts(name, qwen):
    model, (seen, spoken), config = build(name, qwen)
    (tower,) = model.towers.values()
    for part, named in ((tower.tower.encoder, seen), (model.lmm.causal_lm, spoken)):
        assert size(part) == COUNTS.get(named, size(part))
    channels, width = PUBLISHED[seen]["hidden_size"], PUBLISHED[spoken]["hidden_size"]
    connector = (channels + 1) * width + (width + 1) * width
    assert size(model.filler) == connector  # one, which image and region share
    new = size(tower.refinement) + connector
    in_stage_two = name.startswith("finetune")
    assert size(model, trained=True) == new + (size(model.lmm) if in_stage_two else 0)
    assert config.optim_wrapper.optimizer.lr == (2e-5 if in_stage_two else 1e-3)
    of_step = 8 * config.train_dataloader.batch_size
    assert of_step == config.auto_scale_lr.base_batch_size == (128 if in_stage_two else 256)


def test_the_papers_size_is_llavas_with_finer_maps(qwen):
    model, _, _ = build("pretrain", qwen)
    refinement = size(model.towers["clip"].refinement)
    # LLaVA-1.5 7B as published has 64 more tokens, whose rows are padding.
    assert size(model) - refinement + 2 * 64 * 4096 == 7_063_427_072
    assert dict(model.filler.lengths) == {"image": 576, "region": 1}


class Viewed:
    """As a model with a tower, without one."""

    @staticmethod
    def view_settings():
        return {"clip": ViewSettings((28, 28))}


def test_every_evaluation_has_a_miniature_and_a_twin():
    benchmarks = {name.split("_siglip_")[0] for name in EVALUATIONS}
    assert benchmarks == set(REGION_WRITERS) == set(PERFECT)
    assert len(EVALUATIONS) == 2 * len(benchmarks)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_model_that_is_right_gets_the_best_number(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    benchmark = name.split("_siglip_")[0]
    answers = write_region_miniature(benchmark, tmp_path)
    monkeypatch.setattr(
        "llmdet.evaluation.caption.caption_scores",  # of Java
        lambda references, said: {
            "CIDEr": float(all([said[i]] == t for i, t in references.items()))
        },
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
        boxes = grounding_of(sample).regions.boxes
        sample.pred_text = answers.pop((sample.get("benchmark_set"), sample.img_id))
        if benchmark == "refcocog_choice":  # whose candidates were shuffled
            wanted = boxes[:, 0].argmin() if sample.img_id == 1 else boxes[:, 0].argmax()
            sample.pred_text = choice(int(wanted) + 1)
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            scores=torch.ones(len(boxes)),
            labels=torch.zeros(len(boxes), dtype=torch.int64),
        )
        evaluator.process([sample])
    values = evaluator.evaluate(len(dataset))
    assert values[PERFECT[benchmark]] == pytest.approx(1)
    assert not answers


def test_files_and_the_place_of_their_pictures_are_changed_by_a_word_each():
    options = {"data_root": "/rows", "pictures": "/disk"}
    config = load_config(CONFIGS / "finetune_siglip_qwen2.5_0.5b.py", options)
    for part in config.train_dataloader.dataset.datasets:
        assert (part.data_root, part.picture_folders) == ("/rows/", ["/disk"])
    config = load_config(CONFIGS / "pretrain.py", {"pictures": "/disk"})
    assert config.train_dataloader.dataset.datasets[0].data_root == "data/regions/"
