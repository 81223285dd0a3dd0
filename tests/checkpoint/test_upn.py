"""A file of UPN's layout, written here with DINO's names, becomes a detector of ours."""

from __future__ import annotations

import logging
import re

import pytest
import torch

from llmdet.checkpoint import load_weights
from llmdet.errors import CheckpointError
from llmdet.testing.models import tiny_proposal_dino

SETTINGS = {"bbox_head": {"contrastive_cfg": {"log_scale": "none", "bias": False}}}
DINO = [  # ours -> the names of DINO's program
    (r"^backbone\.patch_embed\.projection", "backbone.0.patch_embed.proj"),
    (r"^backbone\.stages", "backbone.0.layers"),
    (r"^backbone\.(norm|patch)", r"backbone.0.\1"),
    (r"attn\.w_msa\.", "attn."),
    (r"(blocks\.\d+)\.ffn\.layers\.0\.0", r"\1.mlp.fc1"),
    (r"(blocks\.\d+)\.ffn\.layers\.1", r"\1.mlp.fc2"),
    (r"^neck\.convs\.(\d)\.conv", r"input_proj.\1.0"),
    (r"^neck\.convs\.(\d)\.gn", r"input_proj.\1.1"),
    (r"^neck\.extra_convs\.0\.conv", "input_proj.3.0"),
    (r"^neck\.extra_convs\.0\.gn", "input_proj.3.1"),
    (r"^(en|de)coder", r"transformer.\1coder"),
    (r"(layers\.\d+)\.ffn\.layers\.0\.0", r"\1.linear1"),
    (r"(layers\.\d+)\.ffn\.layers\.1", r"\1.linear2"),
    (r"(encoder\.layers\.\d)\.norms\.0", r"\1.norm1"),
    (r"(encoder\.layers\.\d)\.norms\.1", r"\1.norm2"),
    (r"(decoder\.layers\.\d)\.norms\.0", r"\1.norm2"),
    (r"(decoder\.layers\.\d)\.norms\.1", r"\1.norm1"),
    (r"(decoder\.layers\.\d)\.norms\.2", r"\1.norm3"),
    (r"self_attn\.attn\.", "self_attn."),
    (r"^level_embed", "transformer.level_embed"),
    (r"^query_embedding", "transformer.tgt_embed"),
    (r"^memory_trans_fc", "transformer.enc_output"),
    (r"^memory_trans_norm", "transformer.enc_output_norm"),
    (r"^dn_query_generator.label_embedding", "label_enc"),
]


def write_upn(model, path, prefix=""):
    """What the publishers' program would have saved of a model."""
    state = {}
    for key, value in model.state_dict().items():
        if key == "granularity_embedding.weight":
            state["fine_grained_prompt.weight"] = value[:1]
            state["coarse_grained_prompt.weight"] = value[1:]
            continue
        if found := re.fullmatch(r"bbox_head\.reg_branches\.(\d)\.(\d)\.(\w+)", key):
            layer, end = int(found[1]), f"layers.{int(found[2]) // 2}.{found[3]}"
            head = "transformer.enc_out_bbox_embed" if layer == 2 else f"bbox_embed.{layer}"
            state[f"{head}.{end}"] = value
            if layer < 2:
                state[f"transformer.decoder.bbox_embed.{layer}.{end}"] = value
            continue
        name = key
        for ours, theirs in DINO:
            name = re.sub(ours, theirs, name)
        if ".downsample." in name:  # theirs: the four pixels one after the other
            *lead, merged = value.shape
            pixels = value.reshape(*lead, merged // 4, 2, 2)  # [..., C, row, column]
            order = [pixels[..., row, col] for col in (0, 1) for row in (0, 1)]
            value = torch.cat(order, -1)
        state[name] = value
    torch.save({"model": {prefix + k: v.clone() for k, v in state.items()}}, path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_file_finds_what_its_writer_found_and_prints_its_notice(tmp_path, caplog, prefix):
    source, model = (tiny_proposal_dino(seed, **SETTINGS) for seed in (1, 2))
    write_upn(source, tmp_path / "upn_large.pth", prefix)
    with caplog.at_level(logging.WARNING, "llmdet"):
        report = load_weights(model, tmp_path / "upn_large.pth")
    assert report.format == "upn"
    assert "IDEA License 1.0" in caplog.text
    of_training = {"dn_query_generator.label_embedding.weight"}
    theirs = source.state_dict()
    wrong = [k for k, v in model.state_dict().items() if not torch.equal(v, theirs[k])]
    assert set(wrong) <= of_training


def test_a_box_map_that_all_layers_share_may_stand_there_once(tmp_path):
    source, model = (tiny_proposal_dino(seed, **SETTINGS) for seed in (1, 2))
    path = tmp_path / "upn.pth"
    write_upn(source, path)
    state = torch.load(path)["model"]
    kept = {k.replace("bbox_embed.0.", "bbox_embed."): v for k, v in state.items()}
    kept = {k: v for k, v in kept.items() if "bbox_embed.1." not in k and "decoder.bbox" not in k}
    torch.save({"model": kept}, path)
    load_weights(model, path)
    maps = zip(model.bbox_head.parameters(), source.bbox_head.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in maps)


def test_our_own_checkpoint_of_it_comes_back(tmp_path):
    source, model = tiny_proposal_dino(1), tiny_proposal_dino(2)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "ours.pth")
    assert load_weights(model, tmp_path / "ours.pth").format == "llmdet"
    theirs = source.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"coarse_grained_prompt.weight": None}, "lack coarse_grained_prompt"),
        (
            {"transformer.text_head.weight": torch.zeros(1)},
            "'transformer.text_head.weight' fits no",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_what_is_wrong(tmp_path, change, sentence):
    path = tmp_path / "upn.pth"
    write_upn(tiny_proposal_dino(**SETTINGS), path)
    state = torch.load(path)["model"] | change
    torch.save({"model": {k: v for k, v in state.items() if v is not None}}, path)
    with pytest.raises(CheckpointError, match=sentence):
        load_weights(tiny_proposal_dino(**SETTINGS), path)
