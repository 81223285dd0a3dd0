"""The smallest training run: a linear map learns a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset


@DATASETS.register_module()
class Line(Dataset):
    """Points of y = 2x + 1."""

    metainfo: ClassVar = {"classes": ("point",)}

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        x = torch.tensor([index / 8.0])
        return torch.cat([x, 2 * x + 1])


@MODELS.register_module()
class Regression(BaseModel):
    """Learns the line."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, *points: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        """The loss over a batch of points."""
        x, y = torch.stack(points).split(1, dim=1)
        return {"loss": (self.linear(x) - y).square().mean()}


@MODELS.register_module()
class Layers(BaseModel):
    """Learns the line with a frozen map among others, none of a size that two divides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(1, 7), nn.Linear(7, 3), nn.Linear(3, 1)
        self.second.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, *points: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        """The loss over a batch of points."""
        x, y = torch.stack(points).split(1, dim=1)
        found = self.last(self.second(self.first(x).tanh())) * self.scale
        return {"loss": (found - y).square().mean()}


def line_config(work_dir: Path, max_iters: int = 4, **changes: Any) -> Config:
    """Config of a training that takes a moment, with a checkpoint at every second iteration."""
    settings: dict[str, Any] = dict(
        model=dict(type="Regression"),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dict(type="Line"),
            batch_size=2,
            num_workers=0,
            sampler=dict(type="InfiniteSampler", shuffle=True),
        ),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.1)),
        param_scheduler=dict(type="LinearLR", start_factor=0.1, end=10, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
        default_scope="mmengine",
        randomness=dict(seed=3),
        # Runs of one name that begin in the same second share their logs.
        experiment_name=f"{work_dir.parent.name}_{work_dir.name}",
    )
    return Config({**settings, **changes})
