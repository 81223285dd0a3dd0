"""The wrapper around a causal language model: frozen, looking, generating."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.lmm.conversation import ConversationBuilder

PROMPT = "Describe the region in a phrase."


def training_batch(lmm, rows=3):
    answers = ["Red circle.", "A large yellow star.", "Blue square."][:rows]
    return ConversationBuilder(lmm.tokenizer, 60).training_batch([PROMPT] * rows, answers, 1)


def prompt_batch(lmm, rows=3):
    return ConversationBuilder(lmm.tokenizer, 60).prompt_batch([PROMPT] * rows, 1)


def test_only_lora_and_region_attention_train_and_they_are_float32(make_lmm, folder):
    lmm = make_lmm(folder, dtype="bfloat16")
    trainable = {name: p for name, p in lmm.named_parameters() if p.requires_grad}
    assert all(
        ".lora_" in name or ".region_attention." in name or name.startswith("reference_head")
        for name in trainable
    )
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    frozen = [p for p in lmm.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16}


def test_an_unfrozen_language_model_trains_every_weight(make_lmm, folder, encoded, regions):
    lmm = make_lmm(folder, frozen=False, lora=None, dtype="float32")
    assert all(p.requires_grad for p in lmm.parameters())
    lmm.loss(training_batch(lmm), regions(lmm), encoded).backward()
    idle = [name for name, p in lmm.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("wrong", [{"lora": {"r": 4}}, {"lora": None, "dtype": "bfloat16"}])
def test_an_unfrozen_language_model_refuses_what_cannot_train_well(make_lmm, folder, wrong):
    with pytest.raises(ConfigError, match=r"lmm\.frozen=False trains every weight"):
        make_lmm(folder, frozen=False, **{"dtype": "float32", **wrong})


def test_the_loss_equals_the_models_own_where_nothing_looks(make_lmm, folder, encoded, regions):
    """transformers shifts labels and projects all positions; ours only the supervised ones."""
    lmm = make_lmm(folder)
    visual = replace(regions(lmm), references=None)
    dialogue = training_batch(lmm)
    ours = lmm.loss(dialogue, visual, encoded)
    theirs = lmm.causal_lm(
        inputs_embeds=lmm.embed(dialogue, visual.embeds),
        attention_mask=dialogue.attention_mask,
        labels=dialogue.labels,
    ).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_a_rebuilt_layer_computes_what_the_original_layer_did(make_lmm, folder):
    """Without visual tokens the region attention in it changes nothing, bit by bit."""
    plain = make_lmm(folder, region_attention=None, lora=None)
    rebuilt = make_lmm(folder, lora=None)
    ids = torch.arange(2 * 11).view(2, 11) + 10
    with torch.no_grad():
        expected = plain.causal_lm(ids).logits
        assert torch.equal(rebuilt.causal_lm(ids).logits, expected)


def test_weights_keep_their_names_when_layers_are_rebuilt(make_lmm, folder):
    plain = make_lmm(folder, region_attention=None).state_dict()
    rebuilt = make_lmm(folder).state_dict()
    added = set(rebuilt) - set(plain)
    assert set(plain) <= set(rebuilt)
    assert all("region_attention" in name or "reference_head" in name for name in added)


def test_visual_tokens_look_at_their_own_image_only(make_lmm, encoded, regions):
    lmm = make_lmm()
    visual, dialogue = regions(lmm), training_batch(lmm)

    def hidden(memory):
        other = replace(encoded, memory=memory)
        context = lmm._context(dialogue, visual, other)
        with lmm.holder.use(context), torch.no_grad():
            return lmm.causal_lm.get_decoder()(
                inputs_embeds=lmm.embed(dialogue, visual.embeds)
            ).last_hidden_state

    before = hidden(encoded.memory)
    changed = encoded.memory.clone()
    changed[1] += 1
    after = hidden(changed)
    assert torch.equal(before[:2], after[:2])  # both regions of the first image
    assert not torch.allclose(before[2], after[2])
    place = dialogue.visual[2, 0]
    assert torch.equal(before[2, :place], after[2, :place])  # causal: nothing before the token


def test_the_padded_part_of_memory_is_never_looked_at(make_lmm, encoded, regions):
    lmm = make_lmm()
    visual, dialogue = regions(lmm), training_batch(lmm)
    before = lmm.loss(dialogue, visual, encoded)
    spoilt = encoded.memory.masked_fill(encoded.pyramid.padding_mask[..., None], 1e4)
    after = lmm.loss(dialogue, visual, replace(encoded, memory=spoilt))
    torch.testing.assert_close(after, before)


def test_regions_of_one_image_equal_regions_asked_for_alone(make_lmm, encoded, regions):
    """Packing the regions of an image into one attention call mixes nothing up."""
    lmm = make_lmm()
    visual, dialogue = regions(lmm), training_batch(lmm)
    logits = []
    for rows, counts in (([0, 1, 2], (2, 1)), ([0], (1, 0)), ([1], (1, 0)), ([2], (0, 1))):
        some = replace(
            visual,
            embeds=visual.embeds[rows],
            references=visual.references[rows],
            counts=counts,
        )
        part = replace(dialogue, visual=dialogue.visual[rows], input_ids=dialogue.input_ids[rows])
        part = replace(part, attention_mask=dialogue.attention_mask[rows])
        with lmm.holder.use(lmm._context(part, some, encoded)), torch.no_grad():
            logits.append(lmm.causal_lm(inputs_embeds=lmm.embed(part, some.embeds)).logits)
    torch.testing.assert_close(logits[0], torch.cat(logits[1:]), rtol=1e-4, atol=1e-4)


def test_post_norm_changes_the_model_even_with_a_zero_output_map_and_pre_norm_does_not(
    make_lmm, encoded, regions
):
    losses = {}
    for norm in ("post", "pre", None):
        changes = {"region_attention": None}
        if norm:
            changes = {
                "region_attention": {
                    "every": 2,
                    "embed_dims": 16,
                    "num_heads": 4,
                    "num_levels": 3,
                    "norm": norm,
                }
            }
        lmm = make_lmm(lora=None, **changes)
        for name, parameter in lmm.named_parameters():
            if "region_attention.up_proj" in name:
                torch.nn.init.zeros_(parameter)
        losses[norm] = lmm.loss(training_batch(lmm), regions(lmm), encoded)
    torch.testing.assert_close(losses["pre"], losses[None])
    assert not torch.allclose(losses["post"], losses[None])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_generation_with_a_cache_says_what_it_says_without(
    make_lmm, folder, encoded, regions, norm
):
    region_attention = {
        "every": 2,
        "embed_dims": 16,
        "num_heads": 4,
        "num_levels": 3,
        "norm": norm,
    }
    lmm = make_lmm(folder, region_attention=region_attention)
    visual, dialogue = regions(lmm), prompt_batch(lmm)
    options = {"max_new_tokens": 8, "do_sample": False}
    cached = lmm.generate(dialogue, visual, encoded, use_cache=True, **options)
    assert cached == lmm.generate(dialogue, visual, encoded, use_cache=False, **options)
    assert len(cached) == 3


def test_beams_and_several_samples_look_at_the_right_regions(make_lmm, encoded, regions):
    lmm = make_lmm()
    visual, dialogue = regions(lmm), prompt_batch(lmm)
    beams = lmm.generate(dialogue, visual, encoded, max_new_tokens=5, num_beams=1, do_sample=False)
    repeated = lmm.generate(
        dialogue, visual, encoded, max_new_tokens=5, num_beams=3, num_return_sequences=3
    )
    assert len(beams) == 3
    assert len(repeated) == 9
    several = lmm.generate(
        dialogue,
        visual,
        encoded,
        max_new_tokens=5,
        do_sample=True,
        top_k=1,  # sampling with one candidate is greedy
        num_return_sequences=2,
    )
    assert several == [text for text in beams for _ in range(2)]


def test_recomputing_layers_changes_neither_loss_nor_gradients(make_lmm, encoded, regions):
    """Image and region calls both come before the backward pass; each recomputes its own."""
    gradients = []
    for checkpoint in (False, True):
        lmm = make_lmm(checkpoint=checkpoint).train()
        visual, dialogue = regions(lmm), training_batch(lmm)
        silent = replace(visual, references=None)
        loss = lmm.loss(dialogue, visual, encoded) + 2 * lmm.loss(dialogue, silent, encoded)
        loss.backward()
        gradients.append({name: p.grad for name, p in lmm.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_layers_are_recomputed_in_the_backward_pass(make_lmm, encoded, regions):
    calls = []
    lmm = make_lmm(checkpoint=True).train()
    layer = lmm.causal_lm.get_decoder().layers[1]
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = lmm.loss(training_batch(lmm), regions(lmm), encoded)
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2
    assert not any(part.training for part in layer.children())


def test_a_bf16_base_gives_nearly_the_float32_loss(make_lmm, encoded, regions):
    exact, rounded = make_lmm(), make_lmm(dtype="bfloat16")
    losses = [lmm.loss(training_batch(lmm), regions(lmm), encoded) for lmm in (exact, rounded)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)


def test_an_outer_autocast_does_not_reach_a_float32_base(make_lmm, encoded, regions):
    lmm = make_lmm()
    visual, dialogue = regions(lmm), training_batch(lmm)
    expected = lmm.loss(dialogue, visual, encoded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = replace(encoded, memory=encoded.memory.bfloat16().float())
        torch.testing.assert_close(lmm.loss(dialogue, visual, halved), expected, rtol=1e-3, atol=0)


def test_a_model_may_be_given_by_the_fields_of_a_configuration(make_lmm, qwen):
    fields = json.loads((Path(qwen) / "config.json").read_text())
    fields.pop("layer_types")
    lmm = make_lmm({**fields, "num_hidden_layers": 2}, tokenizer=qwen)
    assert len(lmm.causal_lm.get_decoder().layers) == 2


def test_the_text_part_of_an_original_llava_folder_is_found(make_lmm, qwen, tmp_path):
    """Its configuration names a class that transformers does not know, and holds a vision tower."""
    folder = tmp_path / "llava"
    shutil.copytree(qwen, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "mm_vision_tower": "siglip",
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    extra = {"model.vision_tower.patch.weight": torch.ones(2), "model.image_newline": torch.ones(1)}
    save_file(weights | extra, folder / "model.safetensors", metadata={"format": "pt"})
    llava, plain = make_lmm(str(folder), lora=None), make_lmm(qwen, lora=None)
    for name, value in plain.causal_lm.state_dict().items():
        if "region_attention" not in name:
            assert torch.equal(llava.causal_lm.state_dict()[name], value), name


def test_the_text_part_of_a_multimodal_transformers_folder_is_found(make_lmm, qwen, tmp_path):
    folder = tmp_path / "onevision"
    shutil.copytree(qwen, folder)
    text = json.loads((folder / "config.json").read_text())
    config = {
        "model_type": "llava_onevision",
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"model_type": "siglip_vision_model", "num_hidden_layers": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    renamed = {f"language_model.{name}": value for name, value in weights.items()}
    renamed["vision_tower.weight"] = torch.ones(2)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    found, plain = make_lmm(str(folder), lora=None), make_lmm(qwen, lora=None)
    for name, value in plain.causal_lm.state_dict().items():
        if "region_attention" not in name:
            assert torch.equal(found.causal_lm.state_dict()[name], value), name


def test_a_folder_without_weights_is_an_error_unless_random_ones_are_wanted(
    make_lmm, qwen, tmp_path
):
    folder = tmp_path / "empty"
    shutil.copytree(qwen, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pretrained=False"):
        make_lmm(str(folder))
    make_lmm(str(folder), pretrained=False)


def test_missing_weights_are_an_error_that_names_them(make_lmm, qwen, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(qwen, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*model\.norm\.weight"):
        make_lmm(str(folder))


def test_mistakes_in_settings_are_explained(make_lmm, qwen):
    with pytest.raises(ConfigError, match="no folder with a config"):
        make_lmm("/nowhere/at-all")
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        make_lmm(lora={"r": 2, "targets": ["w_qkv"]})
    with pytest.raises(ConfigError, match="'post' or 'pre'"):
        make_lmm(region_attention={"norm": "both"})
    with pytest.raises(ConfigError, match="model_type"):
        make_lmm({"hidden_size": 8}, tokenizer=qwen)
    with pytest.raises(ConfigError, match="no configuration of transformers"):
        make_lmm({"model_type": "qwen99"}, tokenizer=qwen)


def test_layers_of_another_build_are_refused_by_name(make_lmm, tmp_path, qwen):
    """GPT-2's layers have no such place between attention and MLP as Qwen2's."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(ConfigError, match="region_attention=None"):
        make_lmm(str(folder), lora=None)
    make_lmm(str(folder), lora=None, region_attention=None)
