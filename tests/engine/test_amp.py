"""Choosing mixed precision, and what the bf16 wrapper does."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from llmdet.engine import BFloat16OptimWrapper, Float16OptimWrapper, use_mixed_precision
from llmdet.errors import ConfigError


def config(**optim_wrapper) -> Config:
    return Config(dict(optim_wrapper=dict(type="OptimWrapper", **optim_wrapper)))


def test_bf16_is_the_default_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = config(clip_grad=dict(max_norm=0.1))
    use_mixed_precision(settings)
    assert settings.optim_wrapper.type == "BFloat16OptimWrapper"
    assert settings.optim_wrapper.clip_grad == dict(max_norm=0.1)


def test_fp16_is_the_default_on_a_device_without_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    settings = config()
    use_mixed_precision(settings)
    assert settings.optim_wrapper.type == "Float16OptimWrapper"


def test_fp16_is_had_on_request_and_refused_beside_a_strategy():
    settings = config(dtype="float16")
    use_mixed_precision(settings)
    assert settings.optim_wrapper == dict(type="Float16OptimWrapper")
    settings = config(dtype="float16")
    settings.strategy = dict(type="FSDP2")
    with pytest.raises(ConfigError, match="take 'bfloat16'"):
        use_mixed_precision(settings)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="'int8'"):
        use_mixed_precision(config(dtype="int8"))


def test_an_unknown_wrapper_is_refused():
    with pytest.raises(ConfigError, match="ApexOptimWrapper"):
        use_mixed_precision(Config(dict(optim_wrapper=dict(type="ApexOptimWrapper"))))


def test_a_config_that_chose_mixed_precision_itself_is_left_alone():
    settings = Config(dict(optim_wrapper=dict(type="AmpOptimWrapper", loss_scale=512.0)))
    use_mixed_precision(settings)
    assert settings.optim_wrapper == dict(type="AmpOptimWrapper", loss_scale=512.0)


def test_the_forward_pass_runs_in_bf16_and_the_weights_stay_float32():
    model = nn.Linear(4, 2)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 4))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, before - 0.1)
    assert not torch.is_autocast_enabled("cpu")


def test_the_wrapper_differs_from_mmengines_only_in_autocast():
    assert issubclass(BFloat16OptimWrapper, OptimWrapper)
    state = BFloat16OptimWrapper(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)).state_dict()
    assert "loss_scaler" not in state


def test_fp16_learns_from_gradients_that_it_could_not_hold_unscaled():
    model = nn.Linear(1, 1, bias=False)
    wrapper = Float16OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e7))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 1))
    assert output.dtype == torch.float16
    wrapper.update_params(output.float().sum() * 1e-8)
    # 1e-8 is less than half the smallest number of fp16.
    torch.testing.assert_close(model.weight, before - 0.1, rtol=1e-3, atol=1e-3)


def test_fp16_leaves_out_updates_of_infinite_gradients_and_halves_the_scale():
    model = nn.Linear(1, 1)
    wrapper = Float16OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=1.0), clip_grad=dict(max_norm=1.0)
    )
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 1))
    wrapper.update_params(output.float().sum() * 1e4)
    assert torch.equal(model.weight, before)
    assert wrapper.loss_scaler.get_scale() == 2.0**15
    again = Float16OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    again.load_state_dict(wrapper.state_dict())
    assert again.loss_scaler.get_scale() == 2.0**15
