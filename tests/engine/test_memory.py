"""Calculated memory of a training step, beside what PyTorch's allocator was asked for."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

import llmdet.models  # noqa: F401  registers the classes
from llmdet.datasets.toy.models import tiny_bert, tiny_qwen
from llmdet.engine.memory import (
    StepTrace,
    Workload,
    build_without_numbers,
    bytes_of,
    measure_step,
    trace_step,
)
from llmdet.registry import MODELS
from llmdet.testing.models import tiny_config

WORK = Workload(images=2, height=96, width=128, boxes=4, classes=5, phrases=3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    init_default_scope("llmdet")
    bert = tiny_bert(tmp_path_factory.mktemp("bert"))
    lmm = {
        "type": "LanguageModel",
        "model": tiny_qwen(tmp_path_factory.mktemp("qwen")),
        "dtype": "float32",
        "lora": {"r": 4, "alpha": 8},
        "region_attention": {"every": 2, "num_heads": 4},
    }
    captioners = {
        "image_captioner": {
            "encoder": {"type": "GridCells", "grids": ((-2, 2), (-3, 3))},
            "max_length": 96,
        },
        "region_captioner": {"max_length": 64},
    }
    return ConfigDict(tiny_config(bert, type="LLMDet", lmm=lmm, **captioners))


@pytest.fixture(scope="module")
def trace(settings) -> StepTrace:
    return trace_step(build_without_numbers(settings), WORK)


def test_the_calculated_peak_is_within_a_tenth_of_what_a_step_takes(settings, trace):
    model = MODELS.build(settings).train()
    assert abs(trace.peak / measure_step(model, WORK) - 1) < 0.1
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    moments = [v for s in optimizer.state.values() for v in s.values() if v.ndim]
    assert trace.moments == sum(map(bytes_of, moments))
    assert trace.trainable == sum(map(bytes_of, trained))
    assert trace.weights == sum(map(bytes_of, [*model.parameters(), *model.buffers()]))


def test_spreading_divides_what_is_spread_and_nothing_else(trace):
    alone, whole = trace.on("ddp", 1), trace.on("ddp", 8)
    assert whole.gradients == trace.trainable
    assert whole.total - alone.total == trace.trainable - trace.gradients
    spread = trace.on("fsdp2", 8)
    assert spread.weights == trace.weights // 8
    assert spread.optimizer == trace.moments // 8
    assert spread.activations == alone.activations


def test_zero_divides_states_and_keeps_the_rest_whole(trace):
    whole, zero = trace.on("ddp", 8), trace.on("zero-2", 8)
    assert (zero.weights, zero.gradients) == (whole.weights, whole.gradients)
    assert zero.optimizer == (trace.moments + trace.trainable) // 8
