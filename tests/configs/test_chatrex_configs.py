"""Configs of ChatRex and RexSeek: sizes as published, and what each stage trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from llmdet.datasets.toy.models import tiny_qwen
from llmdet.engine.settings import check_settings
from llmdet.registry import MODELS, TRANSFORMS
from llmdet.testing.published import CLIP_LARGE_336, SIGLIP_BASE_384, VICUNA_7B

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for folder in ("chatrex", "rexseek")
    for path in (CONFIGS / folder).glob("*.py")
    if path.stem.startswith(("stage", "infer"))  # the others: test_retrieval_configs.py
)
_TINY_CONVNEXT = {"model_type": "convnext", "image_size": 224}  # transformers' defaults


def qwen(hidden, intermediate, layers, heads, groups, *, vocabulary=151936, tied):
    return {
        "model_type": "qwen2",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "tie_word_embeddings": tied,
    }


_QWEN_3B = qwen(2048, 11008, 36, 16, 2, tied=True)
#: Sizes of the models that the configs name, as their own config.json say them, and parameters.
PUBLISHED = {
    "openai/clip-vit-large-patch14-336": (CLIP_LARGE_336, 303_507_456),
    "google/siglip-base-patch16-384": (SIGLIP_BASE_384, None),
    "facebook/convnext-tiny-224": (_TINY_CONVNEXT, 27_818_592),  # 28,589,128 with norm and classes
    "Qwen/Qwen2.5-0.5B-Instruct": (qwen(896, 4864, 24, 14, 2, tied=True), 494_032_768),
    "Qwen/Qwen2.5-3B-Instruct": (_QWEN_3B, 3_085_938_688),
    "Qwen/Qwen2.5-7B-Instruct": (
        qwen(3584, 18944, 28, 28, 4, vocabulary=152064, tied=False),
        7_615_616_512,
    ),
    "checkpoints/RexSeek-3B": (_QWEN_3B, 3_085_938_688),
    "checkpoints/ChatRex-7B": (
        VICUNA_7B,
        6_738_415_616,
    ),
}
_CONVNEXT_LARGE = 196_227_264  # 197,767,336 with norm and classes


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


def size(module, trained=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_published_ones_and_each_stage_trains_its_parts(name, tokenizer):
    config = Config.fromfile(CONFIGS / f"{name}.py")
    if "train_dataloader" in config:
        check_settings(config)
    settings = config.model.to_dict()
    dual, lmm = settings["towers"]["dual"], settings["lmm"]
    _, spoken = PUBLISHED[lmm["model"]]
    lmm |= {"model": PUBLISHED[lmm["model"]][0], "tokenizer": tokenizer}
    counts = {"fine": _CONVNEXT_LARGE, "lmm": spoken}
    for part in ("coarse", "fine"):
        dual[part]["pretrained"] = False
        if isinstance(dual[part]["model"], str):
            dual[part]["model"], counts[part] = PUBLISHED[dual[part]["model"]]
    with torch.device("meta"):
        model = MODELS.build(settings)
    tower = model.towers["dual"]
    parts = {"coarse": tower.coarse.encoder, "fine": tower.fine.encoder, "lmm": model.lmm.causal_lm}
    tied = lmm["model"]["tie_word_embeddings"]
    rows = 104 * model.lmm.hidden_size * (1 if tied else 2)  # of objects and delimiters
    for part, module in parts.items():
        found = size(module) - (rows if part == "lmm" else 0)
        assert found == (counts[part] or found), part
    width = model.lmm.hidden_size
    connectors = sum((dims + 1) * width + (width + 1) * width for dims in read_dims(tower))
    assert size(model.filler) == connectors
    check_training(name, model, config, size(model.filler))


def read_dims(tower):
    """Channels of image tokens and of region tokens."""
    return tower.dims, sum(tower.map_dims[:-1])


def check_training(name, model, config, connectors):
    stage = name.partition("/")[2][:6]
    trained = {part: size(getattr(model, part), trained=True) for part in ("towers", "lmm")}
    assert size(model.filler, trained=True) == connectors
    if stage == "stage1":
        embeddings = model.lmm.causal_lm.get_input_embeddings()
        head = model.lmm.causal_lm.get_output_embeddings()
        both = {id(p): p.numel() for each in (embeddings, head) for p in each.parameters()}
        assert trained == {"towers": 0, "lmm": sum(both.values())}
    elif stage.startswith("stage"):
        tower = model.towers["dual"]
        frozen = not any(p.requires_grad for p in tower.coarse.parameters())
        assert frozen == (stage == "stage4")
        assert size(tower.fine, trained=True) == size(tower.fine)
        assert trained["lmm"] == size(model.lmm)
    else:
        return
    of_step = 8 * config.train_dataloader.batch_size
    assert of_step == config.auto_scale_lr.base_batch_size == (256 if stage == "stage1" else 128)
    assert config.optim_wrapper.optimizer.lr == (1e-3 if stage == "stage1" else 2e-5)


def test_chatrex_reads_tokens_of_the_published_widths(tokenizer):
    config = Config.fromfile(CONFIGS / "chatrex/stage1.py")
    (referring,) = (
        data for data in config.stage_three if data.ann_file == "rexverse_referring.jsonl"
    )
    kinds = [type(TRANSFORMS.build(dict(step))).__name__ for step in referring.pipeline]
    assert kinds[1:3] == ["AskForObjects", "MixCandidates"]
    slots = config.model.slots
    assert slots.image.encoder["size"] ** 2 == 576
    fine = config.model.towers.dual.fine.model
    assert sum(fine.hidden_sizes) == 2880
    assert 1024 + fine.hidden_sizes[-1] == 2560
