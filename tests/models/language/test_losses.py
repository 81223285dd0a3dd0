"""Cross-entropy at supervised positions only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmdet.models.language import losses
from llmdet.models.language.losses import supervised_cross_entropy, zero_loss


def naive(hidden, labels, head):
    """Logits everywhere, as a language model's own loss computes them."""
    logits = head(hidden)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.fixture
def case():
    hidden = torch.randn(3, 9, 16, requires_grad=True)
    labels = torch.randint(0, 50, (3, 9)).masked_fill(torch.rand(3, 9) < 0.5, -100)
    row, column = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    return hidden, labels, row * 9 + column, labels[:, 1:][row, column]


@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradient_equal_the_naive_ones(case, bias):
    hidden, labels, index, targets = case
    head = nn.Linear(16, 50, bias=bias)
    expected = naive(hidden, labels, head)
    (gradient,) = torch.autograd.grad(expected, hidden)
    ours = supervised_cross_entropy(hidden, index, targets, head)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.autograd.grad(ours, hidden)[0], gradient)


def test_the_vocabulary_is_projected_at_supervised_positions_only(case):
    hidden, _, index, targets = case
    head = nn.Linear(16, 50)
    rows = []
    original = F.linear

    def watched(rows_in, *rest):
        rows.append(len(rows_in))
        return original(rows_in, *rest)

    losses.F.linear = watched
    try:
        supervised_cross_entropy(hidden, index, targets, head)
    finally:
        losses.F.linear = original
    assert rows == [len(targets)]


def test_a_bf16_head_still_gives_a_float32_loss(case):
    hidden, _, index, targets = case
    loss = supervised_cross_entropy(hidden, index, targets, nn.Linear(16, 50).bfloat16())
    assert loss.dtype == torch.float32


def test_the_zero_loss_is_zero_and_reaches_every_trainable_parameter():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).bfloat16())
    module[0].bias.requires_grad_(False)
    loss = zero_loss(module.parameters())
    assert loss == 0
    loss.backward()
    for parameter in module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_fused_kernel_equals_the_naive_loss_on_cuda(case):
    pytest.importorskip("liger_kernel")
    hidden, labels, index, targets = (value.cuda() for value in case)
    hidden = hidden.detach().requires_grad_()
    head = nn.Linear(16, 50, bias=False).cuda().requires_grad_(False)
    expected = naive(hidden, labels, head)
    ours = supervised_cross_entropy(hidden, index, targets, head)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(loss, hidden)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
