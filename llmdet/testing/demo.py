"""A config file and weights of the tiny detector, for tests of what users start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.models import (
    tiny_config,
    tiny_grounding_dino,
    tiny_proposal_config,
    tiny_proposal_dino,
)

#: The steps of the published configs' test pipelines, at a size for the tiny detector.
TINY_PIPELINE: list[dict[str, Any]] = [
    {"type": "LoadImageFromFile", "backend_args": None, "imdecode_backend": "pillow"},
    {"type": "FixScaleResize", "scale": (64, 96), "keep_ratio": True, "backend": "pillow"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackGroundingInputs"},
]


class TinyDemo(NamedTuple):
    """Paths of a config and of weights that fit it."""

    config: Path
    weights: Path


def tiny_demo(folder: Path, **changes: Any) -> TinyDemo:
    """Write a tiny detector as users have one: a config and a checkpoint.

    Args:
        folder: Gets ``config.py``, ``weights.pth`` and ``bert/``.
        changes: Of the model, see :func:`llmdet.testing.models.tiny_config`.
    """
    bert = tiny_bert(folder / "bert")
    return _write(folder, tiny_config(bert, **changes), tiny_grounding_dino(bert, **changes))


def tiny_proposal_demo(folder: Path, **changes: Any) -> TinyDemo:
    """Write a tiny detector without words; arguments as in :func:`tiny_demo`."""
    return _write(folder, tiny_proposal_config(**changes), tiny_proposal_dino(**changes))


def _write(folder: Path, settings: dict[str, Any], model: Any) -> TinyDemo:
    import torch

    dataset = {
        "type": "CocoDataset",
        "metainfo": {"classes": ("dog", "red circle")},
        "pipeline": TINY_PIPELINE,
    }
    config = folder / "config.py"
    config.write_text(
        "default_scope = 'llmdet'\n"
        f"model = {settings!r}\n"
        f"test_dataloader = dict(dataset={dataset!r})\n"
    )
    weights = folder / "weights.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, weights)
    return TinyDemo(config, weights)
