"""Conversations on their way from rows through workers into a training step."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.hooks import Hook

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.models import write_toy_models
from llmdet.engine.runner import build_runner
from llmdet.utils.config import load_config


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = generate(tmp_path_factory.mktemp("toy"), ToySettings(train=8, val=2))
    write_toy_models(folder)
    return folder


class Watch(Hook):
    """Keeps the samples of every batch, and the losses."""

    def __init__(self):
        self.samples, self.losses = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.samples += data_batch["data_samples"]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs)


@pytest.fixture
def train(root, toy, tmp_path):
    """Trains two steps of a changed quickstart; returns the model, samples and losses."""

    def run(**model):
        options = {
            "data_root": f"{toy}/",
            "model.language_model.name": str(toy / "bert"),
            "model.lmm.model": str(toy / "language_model"),
        }
        config = load_config(root / "configs/quickstart/llmdet.py", options)
        config.merge_from_dict({"model": model})
        loader = config.train_dataloader
        loader.update(batch_size=2, num_workers=1)
        (part,) = loader.dataset.datasets
        part.pipeline[4].update(tokenizer_name=str(toy / "bert"), num_region_caption=2)
        part.pop("label_map_file")
        part.update(ann_file="annotations/alone.jsonl")
        config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=10)
        config.update(work_dir=str(tmp_path), val_cfg=None, val_dataloader=None, val_evaluator=None)
        config.default_hooks.checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=2)
        runner = build_runner(config)
        watch = Watch()
        runner.register_hook(watch)
        runner.train()
        return runner.model, watch

    return run


def rows_of(toy, *, grounded):
    path = toy / "annotations" / "train_grounding.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if not grounded:
            del row["grounding"]
    (toy / "annotations" / "alone.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_workers_tokenise_as_the_model_reads(train, toy, tmp_path):
    rows_of(toy, grounded=True)
    model, watch = train()
    conversations = [c for s in watch.samples for c in grounding_of(s).conversations]
    assert {kind for c in conversations for kind in c.kinds} == {"image", "region"}
    settings = model.conversation_settings()
    assert {c.tokens.settings for c in conversations} == set(settings)
    assert all(losses["loss_lmm_image"] > 0 for losses in watch.losses)
    assert (tmp_path / "iter_2.pth").is_file()


def test_the_alignment_stage_learns_from_rows_with_a_caption_alone(train, toy):
    rows_of(toy, grounded=False)
    # where nothing is learned but captions no decoder runs, so that there are no object queries
    cells = {"_delete_": True, "type": "GridCells", "grids": ((-2, 4), (-3, 8))}
    model, watch = train(
        freeze_detector=True,
        region_captioner=None,
        lmm={"region_attention": None},
        image_captioner={"encoder": cells},
    )
    assert all(grounding_of(sample).prompt is None for sample in watch.samples)
    assert all(losses["loss_lmm_image"] > 0 for losses in watch.losses)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("image_captioner.connector") for name in trained)
    assert not any(name.startswith("backbone") for name in trained)
    assert all(torch.isfinite(p).all() for p in model.image_captioner.parameters())
