"""Folders of GLaMM's key layout, written tiny from its recording."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config

from llmdet.apis.region_chat import RegionChat
from llmdet.checkpoint import load_weights, merge_lora, write_checkpoint
from llmdet.checkpoint.systems.glamm import glamm_to_llmdet
from llmdet.errors import CheckpointError
from llmdet.models.vision.segment_anything import config_of, renamed
from llmdet.registry import MODELS
from llmdet.testing.parity.fused_regions import encoder_sizes

CLIP = "model.vision_tower.vision_tower."


@pytest.fixture(scope="module")
def recorded(root):
    folder = root / "tests/golden/regions/full_model"
    weights = torch.load(folder / "state_dict.pt", weights_only=True)
    weights = {name: value.float().clone() for name, value in weights.items()}
    files = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("model_config", "expected")
    }
    return (
        weights,
        files["model_config"],
        files["expected"],
        torch.load(folder / "expected.pt", weights_only=True),
    )


@pytest.fixture(scope="module")
def released(recorded, root, tmp_path_factory):
    """A folder as GLaMM's program saves one."""
    weights, config, _, _ = recorded
    folder = tmp_path_factory.mktemp("glamm")
    shutil.copytree(
        root / "tests/golden/regions/text_pipeline/tokenizer", folder, dirs_exist_ok=True
    )
    fields = {**config["llama"], "architectures": ["GLaMMForCausalLM"], "model_type": "llava"}
    (folder / "config.json").write_text(json.dumps({**fields, "mm_hidden_size": 64}))
    places = {}
    for number, part in enumerate(("model.", "lm_head.")):  # in shards, as transformers wrote them
        shard = {name: value for name, value in weights.items() if name.startswith(part)}
        torch.save(shard, folder / f"pytorch_model-{number}.bin")
        places |= dict.fromkeys(shard, f"pytorch_model-{number}.bin")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.fixture
def settings(recorded, released, root):
    """The config of released weights, of the recorded sizes."""
    weights, sizes, _, _ = recorded
    model = Config.fromfile(root / "configs/glamm/infer_7b.py").model.to_dict()
    sam = config_of(renamed(weights), sizes["sam"]["dec_heads"]).to_dict()
    clip = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **sizes["clip"]}
    model["towers"]["clip"] |= {"model": clip, "layers": [3, 6, 9, 12], "pretrained": False}
    model["towers"]["sam"]["model"] = model["output"]["decoder"]["model"] = sam
    model["slots"]["region"]["encoder"] |= encoder_sizes(glamm_to_llmdet(weights))
    model["lmm"]["model"] = str(released)
    return model


def test_a_released_folder_loads_by_name_and_answers_as_recorded(recorded, released, settings):
    weights, _, expected, tensors = recorded
    model = MODELS.build(settings)
    report = load_weights(model, released)
    assert report.format == "glamm"
    ours = glamm_to_llmdet(weights)
    assert set(ours) == set(model.state_dict())
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())
    picture = np.ascontiguousarray(tensors["train.img0.rgb_uint8_hwc"].numpy()[..., ::-1])
    values = expected["generate"]
    question = values["prompt"].partition("picture.\n")[2].removesuffix(" ASSISTANT:")
    said = RegionChat(model).ask(picture, question, max_new_tokens=values["max_new_tokens"])
    assert said == model.lmm.tokenizer.decode(values["new_tokens"]).strip()


def test_what_a_file_leaves_out_is_clips_or_an_error(recorded, settings, tmp_path):
    weights = recorded[0]
    file = tmp_path / "without_clip.pth"
    write_checkpoint(file, {n: v for n, v in weights.items() if not n.startswith(CLIP)})
    with pytest.raises(CheckpointError, match=r"towers\.clip\.encoder"):
        load_weights(MODELS.build(settings), file)
    from transformers import AutoConfig, AutoModel

    fields = AutoConfig.for_model(**settings["towers"]["clip"]["model"])
    AutoModel.from_config(fields).save_pretrained(tmp_path / "clip")
    settings["towers"]["clip"] |= {"model": str(tmp_path / "clip"), "pretrained": True}
    model = MODELS.build(settings)
    before = {name: value.clone() for name, value in model.towers["clip"].state_dict().items()}
    load_weights(model, file)
    after = model.towers["clip"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_lora_is_merged_into_a_plain_checkpoint(recorded, released, settings, tmp_path):
    """Of a training of ours, and of names as trainings of the original have them."""
    weights, _, _, _ = recorded
    lora = {"r": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    tuned = MODELS.build({**settings, "lmm": {**settings["lmm"], "lora": lora, "frozen": "layers"}})
    plain = {f"base_model.model.{name}": value for name, value in weights.items()}
    random = torch.Generator().manual_seed(2)
    for layer in range(2):
        for part in lora["targets"]:
            stem = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            plain[f"{stem}.lora_A.weight"] = torch.randn(2, 48, generator=random)
            plain[f"{stem}.lora_B.weight"] = torch.randn(48, 2, generator=random)
    load_weights(tuned, released, load_missing=("lmm",))  # where a training of LoRA begins
    write_checkpoint(tmp_path / "tuned.pth", plain)
    load_weights(tuned, tmp_path / "tuned.pth")
    merged = merge_lora(tuned.state_dict(), alpha=4)
    write_checkpoint(tmp_path / "merged.pth", merged)
    model = MODELS.build(settings)
    load_weights(model, tmp_path / "merged.pth")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        one, other = (each.lmm.causal_lm(ids).logits for each in (tuned, model))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    untuned = glamm_to_llmdet(weights)
    name = "lmm.causal_lm.model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(model.state_dict()[name], untuned[name])
