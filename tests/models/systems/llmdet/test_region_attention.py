"""Visual tokens inside the language model look at the memory of their image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.regions.base import batch_regions
from llmdet.prompts.conversation import ConversationSettings, ask
from llmdet.prompts.conversation_tokens import ConversationTokenizer

PROMPT = "<region>\nDescribe the region in a phrase."
ANSWERS = ("Red circle.", "A large yellow star is to the left.", "Blue square.")
LOOK = {"every": 2, "embed_dims": 16, "num_heads": 4, "num_levels": 3}
GREEDY = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture
def regions(three_regions):
    """Two regions of the first image, one of the second."""
    return three_regions


@pytest.fixture
def references(seen):
    random = torch.Generator().manual_seed(7)
    boxes = torch.rand(3, 1, 4, generator=random) * 0.4 + 0.2
    ratios = seen.valid_ratios[[0, 0, 1]].repeat(1, 1, 2)
    return boxes[:, :, None] * ratios[:, None]  # [3, 1, levels, 4]


def dialogue_of(lmm, answers=ANSWERS, questions=None):
    settings = ConversationSettings(lmm.tokenizer_name, (("region", 1),), 100)
    tokenize = ConversationTokenizer(lmm.tokenizer, settings)
    if questions is not None:
        return collate_dialogue([tokenize(ask(q)) for q in questions], lmm.pad_id, left=True)
    return collate_dialogue([tokenize(ask(PROMPT, answer)) for answer in answers], lmm.pad_id)


def features(lmm):
    random = torch.Generator().manual_seed(7)
    return {"region": torch.rand(3, lmm.hidden_size, generator=random)}


def loss(lmm, encoded, regions, references):
    dialogue = dialogue_of(lmm)
    with lmm.adapter.looking(encoded, regions, references, dialogue, "region"):
        return lmm.loss(dialogue, features(lmm))


def say(lmm, encoded, regions, references, questions=(PROMPT,) * 3, **options):
    dialogue = dialogue_of(lmm, questions=questions)
    with lmm.adapter.looking(encoded, regions, references, dialogue, "region"):
        return lmm.generate(dialogue, features(lmm), **{**GREEDY, **options})


def test_it_trains_in_float32_beside_a_halved_base(make_lmm, folder):
    lmm = make_lmm(folder, LOOK, dtype="bfloat16", lora=None)
    trainable = {name: p for name, p in lmm.named_parameters() if p.requires_grad}
    assert all("region_attention." in n or n.startswith("reference_head") for n in trainable)
    assert {p.dtype for p in trainable.values()} == {torch.float32}


def test_a_rebuilt_layer_computes_what_the_original_layer_did(make_lmm, folder):
    """Where nothing looks the region attention in it changes nothing, bit by bit."""
    plain, rebuilt = make_lmm(folder, lora=None), make_lmm(folder, LOOK, lora=None)
    ids = torch.arange(2 * 11).view(2, 11) + 10
    with torch.no_grad():
        assert torch.equal(rebuilt.causal_lm(ids).logits, plain.causal_lm(ids).logits)


def test_weights_keep_their_names_when_layers_are_rebuilt(make_lmm, folder):
    plain, rebuilt = make_lmm(folder).state_dict(), make_lmm(folder, LOOK).state_dict()
    assert set(plain) <= set(rebuilt)
    added = set(rebuilt) - set(plain)
    assert all("region_attention" in name or "reference_head" in name for name in added)


def test_every_trainable_weight_gets_a_gradient(make_lmm, folder, encoded, regions, references):
    lmm = make_lmm(folder, LOOK)
    loss(lmm, encoded, regions, references).backward()
    idle = [n for n, p in lmm.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_visual_tokens_look_at_their_own_image_only(make_lmm, encoded, regions, references):
    lmm = make_lmm(look=LOOK)
    dialogue = dialogue_of(lmm)

    def hidden(memory):
        other = replace(encoded, memory=memory)
        looking = lmm.adapter.looking(other, regions, references, dialogue, "region")
        with looking, torch.no_grad():
            return lmm.causal_lm.get_decoder()(
                inputs_embeds=lmm.embed(dialogue, features(lmm))
            ).last_hidden_state

    before = hidden(encoded.memory)
    changed = encoded.memory.clone()
    changed[1] += 1
    after = hidden(changed)
    assert torch.equal(before[:2], after[:2])  # both regions of the first image
    assert not torch.allclose(before[2], after[2])
    place = int(dialogue.slots["region"][2]) % dialogue.input_ids.shape[1]
    assert torch.equal(before[2, :place], after[2, :place])  # causal: nothing before the token


def test_the_padded_part_of_memory_is_never_looked_at(make_lmm, encoded, regions, references):
    lmm = make_lmm(look=LOOK)
    before = loss(lmm, encoded, regions, references)
    spoilt = encoded.memory.masked_fill(encoded.pyramid.padding_mask[..., None], 1e4)
    after = loss(lmm, replace(encoded, memory=spoilt), regions, references)
    torch.testing.assert_close(after, before)


def test_regions_of_one_image_equal_regions_by_themselves(make_lmm, encoded, regions, references):
    """Packing the regions of an image into one attention call mixes nothing up."""
    lmm = make_lmm(look=LOOK)
    states = []
    for rows, counts in (([0, 1, 2], (2, 1)), ([0], (1, 0)), ([1], (1, 0)), ([2], (0, 1))):
        dialogue = dialogue_of(lmm, [ANSWERS[0]] * len(rows))
        part = batch_regions(counts, torch.device("cpu"))
        given = {"region": features(lmm)["region"][rows]}
        looking = lmm.adapter.looking(encoded, part, references[rows], dialogue, "region")
        with looking, torch.no_grad():
            embeds = lmm.embed(dialogue, given)
            states.append(lmm.causal_lm(inputs_embeds=embeds).logits)
    torch.testing.assert_close(states[0], torch.cat(states[1:]), rtol=1e-4, atol=1e-4)


def test_post_norm_changes_the_model_even_with_a_zero_output_map_and_pre_norm_does_not(
    make_lmm, encoded, regions, references
):
    losses = {}
    for norm in ("post", "pre"):
        lmm = make_lmm(lora=None, look={**LOOK, "norm": norm})
        for name, parameter in lmm.named_parameters():
            if "region_attention.up_proj" in name:
                torch.nn.init.zeros_(parameter)
        losses[norm] = loss(lmm, encoded, regions, references)
    plain = make_lmm(lora=None)
    expected = plain.loss(dialogue_of(plain), features(plain))
    torch.testing.assert_close(losses["pre"], expected)
    assert not torch.allclose(losses["post"], expected)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_generation_with_a_cache_says_what_it_says_without(
    make_lmm, folder, encoded, regions, references, norm
):
    lmm = make_lmm(folder, {**LOOK, "norm": norm})
    arguments = encoded, regions, references
    cached = say(lmm, *arguments, max_new_tokens=8, use_cache=True)
    without = say(lmm, *arguments, max_new_tokens=8, use_cache=False)
    assert torch.equal(cached.ids, without.ids)
    assert len(cached.texts) == 3


def test_what_was_said_is_read_again_with_the_same_looks(make_lmm, encoded, regions, references):
    """Greedy tokens are the most probable ones also in the pass that gives probabilities."""
    lmm = make_lmm(look=LOOK)
    said = say(lmm, encoded, regions, references, (PROMPT, PROMPT + " Briefly.", PROMPT))
    logits = lmm.causal_lm.get_output_embeddings()(said.hidden)
    assert torch.equal(logits.argmax(-1), said.ids)


def test_beams_and_several_samples_look_at_the_right_regions(
    make_lmm, encoded, regions, references
):
    lmm = make_lmm(look=LOOK)
    greedy = say(lmm, encoded, regions, references)
    beams = say(lmm, encoded, regions, references, num_beams=3, num_return_sequences=3)
    assert len(beams.texts) == len(beams.probabilities) == 9
    sampled = say(
        lmm,
        encoded,
        regions,
        references,
        do_sample=True,
        top_k=1,  # sampling with one candidate is greedy
        num_return_sequences=2,
    )
    assert sampled.texts == [text for text in greedy.texts for _ in range(2)]
    expected = greedy.probabilities.repeat_interleave(2, 0)
    torch.testing.assert_close(sampled.probabilities, expected)


def test_recomputing_layers_changes_neither_loss_nor_gradients(
    make_lmm, encoded, regions, references
):
    """Looking and silent calls both come before the backward pass; each recomputes its own."""
    gradients = []
    for checkpoint in (False, True):
        lmm = make_lmm(look=LOOK, checkpoint=checkpoint).train()
        silent = lmm.loss(dialogue_of(lmm), features(lmm))
        (loss(lmm, encoded, regions, references) + 2 * silent).backward()
        gradients.append({name: p.grad for name, p in lmm.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_an_outer_autocast_does_not_reach_a_float32_base(make_lmm, encoded, regions, references):
    lmm = make_lmm(look=LOOK)
    expected = loss(lmm, encoded, regions, references)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = replace(encoded, memory=encoded.memory.bfloat16().float())
        ours = loss(lmm, halved, regions, references)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=0)


def test_mistakes_in_settings_are_explained(make_lmm):
    with pytest.raises(ConfigError, match="'post' or 'pre'"):
        make_lmm(look={"norm": "both"})


def test_layers_of_another_build_are_refused_by_name(make_lmm, tmp_path, qwen):
    """GPT-2's layers have no such place between attention and MLP as Qwen2's."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2"
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(ConfigError, match="region_attention=None"):
        make_lmm(str(folder), LOOK, lora=None)
    make_lmm(str(folder), lora=None)
