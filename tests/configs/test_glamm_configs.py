"""Configs of GLaMM: sizes as published, what trains, and how often each task comes."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import ConcatDataset

from llmdet.datasets.toy.models import tiny_qwen
from llmdet.engine.settings import check_settings
from llmdet.registry import DATA_SAMPLERS, MODELS
from llmdet.testing.published import CLIP_LARGE_336, QWEN_05B, SIGLIP_BASE_384, VICUNA_7B

CONFIGS = Path(__file__).parents[2] / "configs" / "glamm"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))


def sam(hidden, layers, heads, whole):
    return {
        "model_type": "sam",
        "vision_config": {
            "hidden_size": hidden,
            "mlp_dim": 4 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "global_attn_indexes": whole,
        },
    }


#: Sizes of the models that the configs name, as published, and parameters.
PUBLISHED = {
    "openai/clip-vit-large-patch14-336": (CLIP_LARGE_336, 303_507_456),
    "google/siglip-base-patch16-384": (SIGLIP_BASE_384, None),
    "lmsys/vicuna-7b-v1.5": (VICUNA_7B, 6_738_415_616),
    "checkpoints/GLaMM-FullScope": (VICUNA_7B, 6_738_415_616),
    "Qwen/Qwen2.5-0.5B-Instruct": (QWEN_05B, 494_032_768),
    "checkpoints/sam_vit_h_4b8939.pth": (sam(1280, 32, 16, [7, 15, 23, 31]), 637_026_048),
    "checkpoints/sam_vit_b_01ec64.pth": (sam(768, 12, 12, [2, 5, 8, 11]), 89_670_912),
}
#: Of SAM's mask decoder, of any size.
_DECODER = 4_058_340


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


def size(parameters, trained=False):
    return sum(p.numel() for p in parameters if p.requires_grad or not trained)


def build(config, tokenizer):
    """The model without weights, and the parameters that its published parts have."""
    settings = config.model.to_dict()
    counts = {}
    parts = {"clip": settings["towers"]["clip"], "sam": settings["towers"]["sam"]}
    parts |= {"lmm": settings["lmm"], "decoder": settings["output"]["decoder"]}
    for name, part in parts.items():
        if isinstance(part["model"], str):
            part["model"], counts[name] = PUBLISHED[part["model"]]
    settings["lmm"]["tokenizer"] = tokenizer
    settings["slots"]["image"]["connector"]["source"] = None
    with torch.device("meta"):
        return MODELS.build(settings), counts


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_published_ones_and_what_trains_is_said(name, tokenizer):
    config = Config.fromfile(CONFIGS / f"{name}.py")
    check_settings(config)
    model, counts = build(config, tokenizer)
    towers, lmm = model.towers, model.lmm.causal_lm
    assert size(towers["clip"].encoder.parameters()) == counts["clip"] or counts["clip"] is None
    wanted = counts.get("sam", PUBLISHED["checkpoints/sam_vit_h_4b8939.pth"][1])
    assert size(towers["sam"].encoder.parameters()) == wanted
    assert size(model.output.decoder.decoder.parameters()) == _DECODER
    lora = [p for n, p in lmm.named_parameters() if ".lora_" in n]
    added = {id(p): p for n, p in lmm.named_parameters() if n.endswith(".added")}
    assert size(lmm.parameters()) - size(lora) - size(added.values()) == counts["lmm"]
    assert size(towers.parameters(), trained=True) == 0
    if name == "infer_7b":
        encoder = model.filler.encoders["region"]
        assert tuple(encoder.flatten.weight.shape) == (1024, 1024 * 14 * 14)
        assert size(encoder.parameters()) == 294_944_512
        assert not lora
        assert model.filler.encoders["region"].legacy_roi_scale == 224
        return
    width, layers = lmm.config.hidden_size, lmm.config.num_hidden_layers
    keys = width * lmm.config.num_key_value_heads // lmm.config.num_attention_heads
    assert size(lora) == layers * 8 * (2 * width + width + keys)
    words = lmm.get_input_embeddings().weight, lmm.get_output_embeddings().weight
    heard = {id(p): p for p in words} | added
    assert size(lmm.parameters(), trained=True) == size(lora) + size(heard.values())
    assert {p.dtype for p in heard.values()} == {torch.float32}
    connector = model.filler.connectors["image"].parameters()
    frozen = name in ("gcg", "refseg", "region_caption", "combined")
    assert (size(connector, trained=True) == 0) == frozen
    assert all(p.requires_grad for p in model.filler.encoders["region"].parameters())
    assert all(p.requires_grad for p in model.output.prompt_map.parameters())


@pytest.mark.parametrize("name", [each for each in NAMES if each != "infer_7b"])
def test_a_step_has_one_task_and_steps_have_their_shares(name):
    config = Config.fromfile(CONFIGS / f"{name}.py")
    loader, of_step = config.train_dataloader, config.optim_wrapper.accumulative_counts
    gpus = 1 if name.endswith("0.5b") else 8
    assert gpus * of_step * loader.batch_size == config.auto_scale_lr.base_batch_size == 160
    assert loader.batch_sampler.in_a_row == of_step == 10
    parts = ConcatDataset([range(1000) for _ in loader.dataset.datasets])
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args={"dataset": parts, "seed": 0})
    batches = DATA_SAMPLERS.build(
        loader.batch_sampler, default_args={"sampler": sampler, "batch_size": loader.batch_size}
    )
    tasks = [
        {loader.batch_sampler.tasks[index // 1000] for index in batch}
        for batch in islice(batches, 100 * of_step)
    ]
    steps = [set.union(*tasks[n : n + of_step]) for n in range(0, len(tasks), of_step)]
    assert {len(step) for step in steps} == {1}
    counts = Counter(task for step in steps for task in step)
    if name.startswith("combined"):
        assert counts == {"image": 15, "region": 40, "segment": 45}


def test_all_masks_of_the_combined_stage_come_as_often_as_published():
    config = Config.fromfile(CONFIGS / "combined.py")
    files = [each.ann_file for each in config.train_dataloader.dataset.datasets]
    shares = dict(zip(files, config.train_dataloader.sampler.shares, strict=True))
    semantic = sum(shares[name.ann_file] for name in config.semantic)
    expressions = sum(shares[name.ann_file] for name in config.expressions)
    gcg = [shares[name.ann_file] for name in config.grounded_captions]
    assert [round(each / 9, 6) for each in (semantic, expressions, *gcg)] == [4, 3, 2, 2, 2, 1]
    assert sum(shares.values()) == pytest.approx(280)
