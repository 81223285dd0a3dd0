"""Configs with a language model: each trains two steps, on a detector of toy size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.structures import InstanceData

from llmdet.datasets.toy.models import tiny_bert, tiny_qwen
from llmdet.prompts.conversation import ask
from llmdet.testing.models import tiny_grounding_dino

CONFIGS = Path(__file__).parents[2] / "configs"
ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("*.py"))
RECIPES = [
    "grounding_dino_swin_t",
    "grounding_dino_swin_b",
    "grounding_dino_swin_l",
    "grounding_dino_swin_t_only_p5",
    "grounding_dino_t_for_alignment",
    "large/alignment_qwen2_7b",
    "large/llmdet_swin_b_qwen2_7b",
]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return (
        str(tiny_bert(tmp_path_factory.mktemp("bert"))),
        tiny_qwen(tmp_path_factory.mktemp("qwen")),
    )


def toy_sized(config, bert, qwen):
    """The config's language part on the tiny detector, with a tiny language model."""
    model = config.model.to_dict()
    lmm = model.get("lmm")
    if lmm is not None:
        lmm |= {"model": qwen, "dtype": "float32"}
        if lmm["region_attention"] is not None:
            lmm["region_attention"] |= {"every": 2, "num_heads": 4}
        if lmm["lora"] is not None:
            lmm["lora"] |= {"r": 4, "alpha": 8}
    for captioner in ("image_captioner", "region_captioner"):
        if model.get(captioner) and "max_length" in model[captioner]:
            # the tiny tokenizer cuts words into more pieces
            model[captioner]["max_length"] += 40
    encoder = (model.get("image_captioner") or {}).get("encoder", {})
    if "grids" in encoder:
        encoder["grids"] = [(level, size // 5) for level, size in encoder["grids"]]
    if encoder.get("type") == "AllQueries":
        encoder["count"] = 20
    settings = {
        "type": "LLMDet",
        "lmm": lmm,
        "image_captioner": model.get("image_captioner"),
        "region_captioner": model.get("region_captioner"),
        "freeze_detector": model.get("freeze_detector", False),
        "freeze_backbone": model.get("freeze_backbone", False),
        "decoder": {"num_layers": 3},
    }
    return tiny_grounding_dino(bert, **settings)


def sample():
    made = DetDataSample(
        metainfo={
            "text": "a red circle and a blue square",
            "tokens_positive": {0: [[2, 12]], 1: [[19, 30]]},
            "img_shape": (64, 64),
            "conversations": [
                ask(
                    "<image>\nDescribe the image in detail.",
                    "A red circle is above a blue square.",
                ),
                ask("<region:1>\nDescribe the region in a phrase.", "Blue square."),
                ask("<region:0>\nDescribe the region in a phrase.", "Red circle."),
            ],
        }
    )
    made.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 30, 30], [10, 20, 60, 50]]), labels=torch.tensor([0, 1])
    )
    return made


@pytest.mark.parametrize("name", RECIPES + [f"ablations/{name}" for name in ABLATIONS])
def test_it_trains_two_steps_with_gradients_everywhere(name, folders):
    model = toy_sized(Config.fromfile(CONFIGS / f"{name}.py"), *folders).train()
    named = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=1e-3)
    totals = []
    for _ in range(2):
        losses = model.loss(IMAGES, [sample(), sample()])
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        assert [key for key, p in named.items() if p.grad is None] == []
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[1] < totals[0]


def test_every_ablation_changes_something_and_is_short():
    base = Config.fromfile(CONFIGS / "grounding_dino_swin_t.py").model.to_dict()
    for name in ABLATIONS:
        changed = Config.fromfile(CONFIGS / "ablations" / f"{name}.py").model.to_dict()
        assert changed != base, name
        assert len((CONFIGS / "ablations" / f"{name}.py").read_text().splitlines()) < 12, name


def test_the_alignment_stage_trains_the_image_connector_alone(folders):
    config = Config.fromfile(CONFIGS / "grounding_dino_t_for_alignment.py")
    model = toy_sized(config, *folders).train()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(name.startswith("image_captioner.") for name in trainable)
    assert set(model.loss(IMAGES, [sample(), sample()])) == {"loss_lmm_image"}
    assert not any(module.training for module in model.encoder.modules())


def test_the_main_stage_starts_both_connectors_from_the_alignment_stage(folders, tmp_path):
    """What the checkpoint hook of stage one writes is what ``connector`` of stage two reads."""
    alignment = toy_sized(Config.fromfile(CONFIGS / "grounding_dino_t_for_alignment.py"), *folders)
    path = tmp_path / "epoch_1.pth"
    # A runner's log lies in its checkpoints.
    hub = {"train/loss": HistoryBuffer([1.0], [1])}
    content = {"state_dict": alignment.state_dict(), "meta": {"epoch": 1}, "message_hub": hub}
    torch.save(content, path)
    config = Config.fromfile(CONFIGS / "grounding_dino_swin_t.py")
    assert config.model.connector.endswith("grounding_dino_t_for_alignment/epoch_1.pth")
    bert, qwen = folders
    model = tiny_grounding_dino(
        bert,
        type="LLMDet",
        lmm={"type": "LanguageModel", "model": qwen, "dtype": "float32"},
        image_captioner={},
        region_captioner={},
        connector=str(path),
    )
    learned = alignment.image_captioner.connector.state_dict()
    for captioner in (model.image_captioner, model.region_captioner):
        for key, value in captioner.connector.state_dict().items():
            assert torch.equal(value, learned[key])


def test_the_published_sizes_are_kept():
    large = Config.fromfile(CONFIGS / "grounding_dino_swin_l.py").model
    assert large.lmm.lora == {"r": 64, "alpha": 256, "dropout": 0.0}
    assert large.image_captioner.max_length == 1200
    tiny = Config.fromfile(CONFIGS / "grounding_dino_swin_t.py").model
    assert tiny.lmm.lora == {"r": 128, "alpha": 256, "dropout": 0.0}
    assert tiny.image_captioner.max_length == 1600
    assert tiny.region_captioner.max_length == 40
