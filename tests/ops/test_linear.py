"""Linear maps through oneDNN against torch's."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear
from torch import nn

from llmdet.ops import linear as linear_ops
from llmdet.ops.linear import (
    Linear,
    batched_linear,
    linear,
    onednn_linear_works,
    use_fast_linear,
)

needs_onednn = pytest.mark.skipif(
    not linear_ops._HAS_ONEDNN_LINEAR, reason="this torch has no linear map of oneDNN"
)


def calls(monkeypatch):
    """Names of the maps that ran, as they run."""
    seen = []
    plain, fast = F.linear, linear_ops._onednn_linear

    def torch_linear(*args):
        seen.append("torch")
        return plain(*args)

    def onednn_linear(*args):
        seen.append("onednn")
        return fast(*args)

    monkeypatch.setattr("llmdet.ops.linear.F.linear", torch_linear)
    monkeypatch.setattr(linear_ops, "_onednn_linear", onednn_linear)
    return seen


@needs_onednn
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_map_is_that_of_torch(shape, has_bias):
    x, weight = torch.randn(shape), torch.randn(7, 3)
    bias = torch.randn(7) if has_bias else None
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


@needs_onednn
def test_views_that_are_not_contiguous_are_read_rightly():
    x, weight = torch.randn(3, 6, 4).transpose(1, 2), torch.randn(6, 8).t()
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


@needs_onednn
def test_float32_inference_runs_through_onednn(monkeypatch):
    seen = calls(monkeypatch)
    with torch.no_grad():
        Linear(3, 4)(torch.randn(2, 3))
    assert seen == ["onednn"]


@needs_onednn
@pytest.mark.parametrize("trained", ["x", "weight", "bias", "x weight", "x weight bias"])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_gradients_through_onednn_are_those_of_torch(trained, shape, monkeypatch):
    monkeypatch.setattr("llmdet.ops.linear._MULTIPLICATIONS", 0)
    tensors = {
        "x": torch.randn(shape),
        "weight": torch.randn(8, 3)[::2],  # a view
        "bias": torch.randn(4) if "bias" in trained else None,
    }
    inputs = [tensors[name].requires_grad_() for name in trained.split()]
    expected = torch.autograd.grad(F.linear(*tensors.values()).square().sum(), inputs)
    seen = calls(monkeypatch)
    out = linear(*tensors.values())
    found = torch.autograd.grad(out.square().sum(), inputs)
    assert set(seen) == {"onednn"}
    torch.testing.assert_close(found, expected)
    # As after a sum: a gradient of one number that is seen everywhere.
    torch.testing.assert_close(
        torch.autograd.grad(linear(*tensors.values()).sum(), inputs),
        torch.autograd.grad(F.linear(*tensors.values()).sum(), inputs),
    )


@needs_onednn
def test_what_is_given_out_may_be_changed_in_place(monkeypatch):
    monkeypatch.setattr("llmdet.ops.linear._MULTIPLICATIONS", 0)
    x, weight = torch.randn(2, 4, 3), torch.randn(5, 3, requires_grad=True)
    found, expected = (
        torch.autograd.grad(function(x, weight).relu_().sum(), weight)
        for function in (linear, F.linear)
    )
    torch.testing.assert_close(found, expected)


@needs_onednn
def test_small_maps_with_gradients_other_precision_or_no_onednn_stay_with_torch(monkeypatch):
    seen = calls(monkeypatch)
    module, x = Linear(3, 4), torch.randn(2, 3)
    module(x).sum().backward()
    with torch.no_grad():
        linear(x.double(), module.weight.double(), module.bias.double())
        linear(x.bfloat16(), module.weight.bfloat16(), module.bias.bfloat16())
        with torch.autocast("cpu"):
            assert module(x).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            module(x)
    assert seen == ["torch"] * 5


@needs_onednn
@torch.no_grad()
def test_a_torch_without_the_operator_gives_the_same_by_the_plain_formula(monkeypatch):
    x, weight, bias = torch.randn(2, 5, 3), torch.randn(7, 3), torch.randn(7)
    weights = torch.randn(2, 7, 3)
    fast = linear(x, weight, bias), batched_linear(x, weights)
    monkeypatch.setattr(linear_ops, "_HAS_ONEDNN_LINEAR", False)
    seen = calls(monkeypatch)
    plain = linear(x, weight, bias), batched_linear(x, weights)
    assert "onednn" not in seen
    torch.testing.assert_close(fast, plain)


def missing(*_):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def otherwise(*_):
    raise RuntimeError("mkldnn::_linear_pointwise() is missing value for argument 'beta'\nDecl...")


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (missing, "has no attribute"),
        (otherwise, "missing value for argument 'beta'"),
        (lambda x, weight, bias: x @ weight.T + 1, "other numbers"),
    ],
)
def test_an_operator_that_is_not_what_it_was_is_not_used(monkeypatch, caplog, operator, reason):
    monkeypatch.setattr(linear_ops, "_onednn_linear", operator)
    with caplog.at_level("INFO", logger="llmdet"):
        assert not onednn_linear_works()
    assert reason in caplog.text
    assert "Decl" not in caplog.text


def test_only_plain_maps_are_changed_and_keep_their_parameters():
    class Special(nn.Linear):
        pass

    model = nn.ModuleDict(
        {
            "plain": nn.Linear(3, 4),
            "mmcv": MMCVLinear(3, 4),
            "special": Special(3, 4),
            "attn": nn.MultiheadAttention(4, 2),
        }
    )
    before = dict(model.named_parameters())
    use_fast_linear(model)
    assert type(model["plain"]) is type(model["mmcv"]) is Linear
    assert type(model["special"]) is Special
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


@torch.no_grad()
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_maps_is_one_map_for_each(has_bias, dtype):
    x = torch.randn(2, 4, 3, dtype=dtype).transpose(1, 2)
    weight = torch.randn(2, 7, 4, dtype=dtype)
    bias = torch.randn(2, 7, dtype=dtype) if has_bias else None
    expected = [F.linear(x[i], weight[i], None if bias is None else bias[i]) for i in range(len(x))]
    torch.testing.assert_close(batched_linear(x, weight, bias), torch.stack(expected))
