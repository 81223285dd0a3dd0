"""The wrapper around a causal language model: frozen, reading features, generating."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.prompts.conversation import ConversationSettings, ask
from llmdet.prompts.conversation_tokens import ConversationTokenizer

PROMPT = "<region>\nDescribe the region in a phrase."
ANSWERS = ("Red circle.", "A large yellow star is to the left.", "Blue square.")


def tokenizer_of(lmm):
    settings = ConversationSettings(lmm.tokenizer_name, (("region", 1),), 100)
    return ConversationTokenizer(lmm.tokenizer, settings)


def training_batch(lmm):
    tokenize = tokenizer_of(lmm)
    return collate_dialogue([tokenize(ask(PROMPT, answer)) for answer in ANSWERS], lmm.pad_id)


def question_batch(lmm, prompts=(PROMPT,) * 3):
    tokenize = tokenizer_of(lmm)
    return collate_dialogue([tokenize(ask(prompt)) for prompt in prompts], lmm.pad_id, left=True)


def features(lmm):
    random = torch.Generator().manual_seed(7)
    return {"region": torch.rand(3, lmm.hidden_size, generator=random)}


def test_only_lora_trains_and_it_is_float32(make_lmm, folder):
    lmm = make_lmm(folder, dtype="bfloat16")
    trainable = {name: p for name, p in lmm.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_" in name for name in trainable)
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    frozen = [p for p in lmm.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16}


def test_an_unfrozen_language_model_trains_every_weight(make_lmm, folder):
    lmm = make_lmm(folder, frozen=False, lora=None, dtype="float32")
    assert all(p.requires_grad for p in lmm.parameters())
    lmm.loss(training_batch(lmm), features(lmm)).backward()
    assert [name for name, p in lmm.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("wrong", [{"lora": {"r": 4}}, {"lora": None, "dtype": "bfloat16"}])
def test_an_unfrozen_language_model_refuses_what_cannot_train_well(make_lmm, folder, wrong):
    with pytest.raises(ConfigError, match=r"lmm\.frozen=False trains every weight"):
        make_lmm(folder, frozen=False, **{"dtype": "float32", **wrong})


def test_words_train_in_float32_beside_lora_in_a_frozen_base(make_lmm, folder):
    lora = {"r": 2, "alpha": 4, "targets": ["q_proj"], "dropout": 0.5}
    lmm = make_lmm(folder, frozen="layers", lora=lora, dtype="bfloat16").train()
    words = lmm.causal_lm.get_input_embeddings().weight
    trainable = {name: p for name, p in lmm.named_parameters() if p.requires_grad}
    assert any(p is words for p in trainable.values())
    assert all(
        ".lora_" in name or "embed_tokens" in name or "lm_head" in name for name in trainable
    )
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    batch = training_batch(lmm)
    assert lmm.embed(batch, features(lmm)).dtype == torch.bfloat16
    lmm.loss(batch, features(lmm)).backward()
    assert all(p.grad is not None for p in trainable.values())
    dropped = {float(lmm.loss(batch, features(lmm))) for _ in range(3)}
    assert len(dropped) > 1
    assert len({float(lmm.eval().loss(batch, features(lmm))) for _ in range(2)}) == 1


def test_the_loss_equals_the_models_own(make_lmm, folder):
    """transformers shifts labels and projects all positions; ours only the supervised ones."""
    lmm = make_lmm(folder)
    dialogue = training_batch(lmm)
    ours = lmm.loss(dialogue, features(lmm))
    theirs = lmm.causal_lm(
        inputs_embeds=lmm.embed(dialogue, features(lmm)),
        attention_mask=dialogue.attention_mask,
        labels=dialogue.labels,
    ).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_transformers_need_not_ask_the_device_whether_anything_is_padded(make_lmm):
    """A mask of two dimensions would be searched for padding, for which the host waits."""
    lmm = make_lmm()
    masks = []
    lmm.causal_lm.get_decoder().register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    tokens = tokenizer_of(lmm)(ask(PROMPT, ANSWERS[0]))
    lmm.loss(training_batch(lmm), features(lmm))
    lmm.loss(collate_dialogue([tokens] * 3, lmm.pad_id), features(lmm))
    assert masks[0].ndim == 4
    assert masks[1] is None


def test_features_stand_in_their_slots_and_words_everywhere_else(make_lmm):
    lmm = make_lmm()
    dialogue, given = training_batch(lmm), features(lmm)
    embeds = lmm.embed(dialogue, given)
    words = lmm.causal_lm.get_input_embeddings()(dialogue.input_ids)
    is_slot = torch.zeros_like(dialogue.attention_mask).flatten()
    is_slot[dialogue.slots["region"]] = True
    is_slot = is_slot.view_as(dialogue.attention_mask)
    assert torch.equal(embeds[is_slot], given["region"])
    elsewhere = dialogue.attention_mask & ~is_slot
    assert torch.equal(embeds[elsewhere], words[elsewhere])
    assert not embeds[~dialogue.attention_mask].any()


def test_the_gradient_of_the_loss_reaches_the_features(make_lmm):
    lmm = make_lmm()
    given = {"region": features(lmm)["region"].requires_grad_()}
    lmm.loss(training_batch(lmm), given).backward()
    assert given["region"].grad.any(1).all()


def test_the_head_reads_the_end_of_several_prompts_in_one_piece(make_lmm):
    lmm = make_lmm()
    read = []
    head = lmm.causal_lm.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].stride()))
    lmm.generate(question_batch(lmm), features(lmm), max_new_tokens=2, do_sample=False)
    width = lmm.hidden_size
    assert read[:2] == [(width, width, 1)] * 2  # of the prompts, and of the first answers


def test_generation_tells_ids_texts_and_how_sure_it_was(make_lmm, folder):
    """The probability of each token is that of one pass over the prompt and what was said."""
    lmm = make_lmm(folder)
    dialogue = question_batch(lmm, (PROMPT, PROMPT + " Briefly.", PROMPT))
    said = lmm.generate(dialogue, features(lmm), max_new_tokens=6, do_sample=False)
    assert said.texts == [
        text.strip() for text in lmm.tokenizer.batch_decode(said.ids, skip_special_tokens=True)
    ]
    embeds = lmm.embed(dialogue, features(lmm))
    for row in range(3):
        tokens = dialogue.attention_mask[row]
        words = lmm.causal_lm.get_input_embeddings()(said.ids[row])
        out = lmm.causal_lm(
            inputs_embeds=torch.cat([embeds[row, tokens], words])[None], output_hidden_states=True
        )
        asked = int(tokens.sum())
        chances = out.logits[0, asked - 1 : -1].softmax(-1).gather(1, said.ids[row, :, None])[:, 0]
        ended = (said.ids[row] == lmm.tokenizer.eos_token_id).cumsum(0).roll(1).bool()
        ended[0] = False
        torch.testing.assert_close(said.probabilities[row, ~ended], chances[~ended])
        assert (said.probabilities[row, ended] == 1).all()
        states = out.hidden_states[-1][0, asked - 1 : -1]
        torch.testing.assert_close(said.hidden[row, ~ended], states[~ended], rtol=1e-4, atol=1e-4)


def test_greedy_tokens_are_the_most_probable_ones(make_lmm):
    lmm = make_lmm()
    said = lmm.generate(question_batch(lmm), features(lmm), max_new_tokens=5, do_sample=False)
    head = lmm.causal_lm.get_output_embeddings()
    best = head(said.hidden).softmax(-1).amax(-1)
    torch.testing.assert_close(said.probabilities, best)


def test_probabilities_do_not_depend_on_how_many_logits_are_held_at_once(make_lmm, monkeypatch):
    from llmdet.models.language import language_model

    lmm = make_lmm()
    options = {"max_new_tokens": 5, "do_sample": False}
    whole = lmm.generate(question_batch(lmm), features(lmm), **options)
    monkeypatch.setattr(language_model, "_LOGITS_AT_ONCE", 1)
    pieces = lmm.generate(question_batch(lmm), features(lmm), **options)
    torch.testing.assert_close(pieces.probabilities, whole.probabilities)


def test_layers_are_recomputed_in_the_backward_pass(make_lmm):
    calls = []
    lmm = make_lmm(checkpoint=True).train()
    layer = lmm.causal_lm.get_decoder().layers[1]
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = lmm.loss(training_batch(lmm), features(lmm))
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2
    assert not any(part.training for part in layer.children())


def test_a_bf16_base_gives_nearly_the_float32_loss(make_lmm):
    exact, rounded = make_lmm(), make_lmm(dtype="bfloat16")
    losses = [lmm.loss(training_batch(lmm), features(lmm)) for lmm in (exact, rounded)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)


def test_an_outer_autocast_does_not_reach_a_float32_base(make_lmm):
    lmm = make_lmm()
    expected = lmm.loss(training_batch(lmm), features(lmm))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lmm.loss(training_batch(lmm), features(lmm)), expected)


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
    with pytest.raises(ConfigError, match=r"lmm\.tokenizer"):
        make_lmm(json.loads((Path(qwen) / "config.json").read_text()))
    with pytest.raises(ConfigError, match="model_type"):
        make_lmm({"hidden_size": 8}, tokenizer=qwen)
    with pytest.raises(ConfigError, match="no configuration of transformers"):
        make_lmm({"model_type": "qwen99"}, tokenizer=qwen)
