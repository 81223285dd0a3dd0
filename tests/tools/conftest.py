"""A training that takes seconds: toy images, a tiny detector, a config as users write one."""

from pathlib import Path
from typing import NamedTuple

import pytest

CONFIG = """
_base_ = ["{configs}/default_runtime.py", "{configs}/schedules/quickstart.py"]

model = {model!r}
max_iters = 4
bert = {bert!r}

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="FixScaleResize", scale=(64, 96), keep_ratio=True),
    dict(
        type="RandomSamplingNegPos",
        tokenizer_name=bert,
        num_sample_negative=5,
        max_tokens=64,
        label_map_file="{data}/annotations/label_map.json",
    ),
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="FixScaleResize", scale=(64, 96), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ODVGDataset",
        data_root="{data}",
        ann_file="annotations/train_detection.jsonl",
        label_map_file="annotations/label_map.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
        return_classes=True,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root="{data}",
        ann_file="annotations/val_seen_coco.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
        test_mode=True,
        return_classes=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoMetric", ann_file="{data}/annotations/val_seen_coco.json", metric="bbox"
)
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=100)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=2)
)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
randomness = dict(seed=0)
env_cfg = dict(dist_cfg=dict(timeout=120))
"""


class TinyProject(NamedTuple):
    """What a user of the command line has."""

    folder: Path
    config: Path
    data: Path


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory, root) -> TinyProject:
    from llmdet.datasets.toy import ToySettings, generate
    from llmdet.datasets.toy.models import tiny_bert
    from llmdet.testing.models import tiny_config

    folder = tmp_path_factory.mktemp("project")
    data = folder / "toy"
    generate(data, ToySettings(train=12, val=6, size=64))
    bert = tiny_bert(folder / "bert")
    config = folder / "tiny.py"
    config.write_text(
        CONFIG.format(
            configs=root / "configs" / "_base_", model=tiny_config(bert), bert=str(bert), data=data
        )
    )
    return TinyProject(folder, config, data)
