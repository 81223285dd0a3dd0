"""The bounded memory of encoded prompts."""

import torch
from torch import nn

from llmdet.models.text.cache import PromptCache, parameters_version


def test_the_least_recently_used_prompt_leaves_first() -> None:
    cache = PromptCache(max_tokens=10)
    cache.put("a", torch.zeros(4, 2))
    cache.put("b", torch.zeros(4, 2))
    assert cache.get("a") is not None
    cache.put("c", torch.zeros(4, 2))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None


def test_writing_a_prompt_twice_counts_its_tokens_once() -> None:
    cache = PromptCache(max_tokens=10)
    for _ in range(5):
        cache.put("a", torch.zeros(4, 2))
    cache.put("b", torch.zeros(4, 2))
    assert len(cache) == 2


def test_a_prompt_larger_than_the_cache_is_not_kept() -> None:
    cache = PromptCache(max_tokens=3)
    cache.put("a", torch.zeros(4, 2))
    assert len(cache) == 0
    cache.put("b", torch.zeros(3, 2))
    assert len(cache) == 1


def test_entries_belong_to_one_owner() -> None:
    cache = PromptCache()
    cache.claim("weights 1")
    cache.put("a", torch.zeros(1, 2))
    cache.claim("weights 1")
    assert len(cache) == 1
    cache.claim("weights 2")
    assert len(cache) == 0


def test_the_version_of_parameters_follows_every_way_to_change_them() -> None:
    layer = nn.Linear(2, 2)
    seen = [parameters_version(layer.parameters())]
    with torch.no_grad():
        layer.weight.add_(1)
    seen.append(parameters_version(layer.parameters()))
    layer.load_state_dict({k: v.clone() for k, v in layer.state_dict().items()})
    seen.append(parameters_version(layer.parameters()))
    layer.weight = nn.Parameter(torch.zeros(2, 2))
    seen.append(parameters_version(layer.parameters()))
    layer.half()
    seen.append(parameters_version(layer.parameters()))
    assert len(set(seen)) == len(seen)
    assert parameters_version(layer.parameters()) == seen[-1]


def test_parameters_made_in_inference_mode_have_a_version_too() -> None:
    with torch.inference_mode():
        layer = nn.Linear(2, 2)
    assert parameters_version(layer.parameters()) == parameters_version(layer.parameters())
