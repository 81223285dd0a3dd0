"""Configs of universal proposals: sizes as published, and sets that say their granularity."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from llmdet.engine.settings import check_settings
from llmdet.registry import MODELS
from llmdet.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs" / "upn"


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def build_on_meta(monkeypatch):
    # mmdet's Swin reads its drop rates out of a tensor.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))

    def build(settings, scope="llmdet"):
        with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
            return MODELS.build(settings)

    return build


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_every_setting_is_one_that_something_reads(name):
    check_settings(load_config(CONFIGS / f"{name}.py"))


def test_the_large_model_is_mmdets_dino_but_for_its_prompts_and_shared_box_map(build_on_meta):
    reference = get_config("mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py").model
    reference.backbone.init_cfg = None
    dino = build_on_meta(reference, "mmdet")
    model = build_on_meta(load_config(CONFIGS / "upn_swin_l.py").model)
    for part in ("backbone", "encoder", "decoder.layers"):
        ours, theirs = (parameters(m.get_submodule(part)) for m in (model, dino))
        assert ours == theirs, part
    classes, dims, layers, levels = 80, 256, 6, 5
    box_map = parameters(dino.bbox_head.reg_branches[0])
    # One box map for six layers, no classifiers, one label to denoise, two prompts; the neck has
    # DINO's bias, which mmdet leaves out.
    smaller = (layers - 1) * box_map + (layers + 1) * (classes + classes * dims)
    smaller += (classes - 1) * dims - 2 * dims - levels * dims
    # The fork's map of box encodings is wider than DINO's and does not run.
    ours, theirs = (parameters(m) - parameters(m.decoder.ref_point_head) for m in (model, dino))
    assert ours == theirs - smaller
    assert parameters(model.decoder.ref_point_head) == (2 * dims + 1 + dims + 1) * dims


def test_the_backbone_is_the_swin_l_that_was_published(build_on_meta):
    from transformers import SwinConfig, SwinModel

    sizes = {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48]}
    with torch.device("meta"):
        swin = SwinModel(SwinConfig(image_size=384, window_size=12, **sizes), False)
    model = build_on_meta(load_config(CONFIGS / "upn_swin_l.py").model)
    norms = sum(parameters(getattr(model.backbone, f"norm{level}")) for level in range(4))
    assert parameters(model.backbone) - norms == parameters(swin) - parameters(swin.layernorm)


def test_every_set_says_its_granularity_and_the_fine_one_is_sa_1b():
    config = load_config(CONFIGS / "upn_swin_l.py")
    said = {}
    for part in config.train_dataloader.dataset.datasets:
        (prompt,) = [step for step in part.pipeline if step.type == "AnyObjectPrompt"]
        said[Path(part.data_root).name] = prompt.granularity
    assert [name for name, granularity in said.items() if granularity == "fine"] == ["sa1b"]
    assert len(said) == 10
