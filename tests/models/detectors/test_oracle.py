"""Every stage against transformers' independent MM-Grounding-DINO, in float64."""

import pytest
import torch

from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.oracle import build_pair, run_ours, run_theirs

SHORT, LONG = "red circle. blue square. ", "green star. large dog. cat. "


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return build_pair(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.mark.parametrize(
    "texts", [[SHORT, SHORT], [SHORT, LONG]], ids=["equal prompts", "prompts of different length"]
)
def test_every_stage_equals_transformers(pair, texts):
    ours, theirs = pair
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    own = run_ours(ours, images, texts, [(64, 96)] * 2)
    other = run_theirs(theirs, ours, images, texts, torch.ones(2, 64, 96, dtype=torch.long))
    for name, tensor in own.items():
        torch.testing.assert_close(
            tensor,
            other[name].double(),  # their logits are stored in float32
            rtol=0,
            atol=1e-6,
            msg=lambda m, n=name: f"{n}: {m}",
        )
