"""Attention that begins near and with what is alike."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmdet.datasets.toy.copying_heads import begin_with_copying_heads
from llmdet.datasets.toy.models import tiny_qwen

IDS = torch.tensor([[*range(300, 330), 320]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen")
    tiny_qwen(path, num_key_value_heads=4, vocab_size=400, hidden_size=128, num_hidden_layers=2)
    return path


def attention(folder):
    """[layers, tokens] of the last token, mean of the heads."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        found = model(IDS, output_attentions=True).attentions
    return torch.stack([layer[0, :, -1].mean(0) for layer in found])


def test_heads_begin_with_what_is_near_and_what_is_alike(folder):
    before = attention(folder)
    begin_with_copying_heads(folder)
    after = attention(folder)
    assert after[0, -6:].sum() > 2 * before[0, -6:].sum()
    others = torch.cat([after[1, :20], after[1, 21:30]])
    assert after[1, 20] > 2 * others.mean()  # the same token, ten before


def test_equal_seeds_give_equal_weights(folder):
    begin_with_copying_heads(folder)
    once = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    weight = "model.layers.1.self_attn.o_proj.weight"
    begin_with_copying_heads(folder)
    again = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert torch.equal(once[weight], again[weight])
