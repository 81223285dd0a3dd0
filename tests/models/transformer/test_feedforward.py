"""The feed-forward net, block by block and at once."""

import pytest
import torch

from llmdet.models.transformer.feedforward import FFN, ROWS_ON_CPU


@pytest.mark.parametrize("pixels", [3, ROWS_ON_CPU, ROWS_ON_CPU + 5])
def test_blocks_of_tokens_give_what_all_at_once_give(pixels):
    net, x = FFN(8, 16).eval(), torch.randn(2, pixels, 8)
    with torch.no_grad():
        found = net(x)
    torch.testing.assert_close(found, net(x), rtol=1e-5, atol=1e-5)
