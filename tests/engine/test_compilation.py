"""Training with ``torch.compile``: numbers, graphs, and what is left alone."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine.compilation import CompileSettings, compile_for_training
from llmdet.engine.settings import check_settings
from llmdet.errors import ConfigError
from llmdet.ops import deformable_attention as attention
from llmdet.ops.deformable_attention.reference import sample_with_grid_sample
from llmdet.testing.line import Regression
from llmdet.testing.models import tiny_grounding_dino

SIZES = ((128, 150), (160, 128), (120, 190))
BUCKETS = 2  # 128 x 192 and 192 x 128
BATCHES = (0, 3)  # of one size, with other texts and boxes
LIMITS = ("recompile_limit", "accumulated_recompile_limit")
NAMES = ["red circle", "blue square", "small star", "cat", "green triangle", "white ring"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()
    counters.clear()
    config = torch._dynamo.config
    limits = {name: getattr(config, name) for name in LIMITS}
    yield
    for name, value in limits.items():
        setattr(config, name, value)
    torch._dynamo.reset()


def batch(number):
    """Two images of another size, number of classes and number of boxes than other batches'."""
    height, width = SIZES[number % len(SIZES)]
    generator = torch.Generator().manual_seed(number)
    images, samples = [], []
    for smaller in (0, 8):
        size = (height - smaller, width)
        count = 1 + number % 4
        corners = torch.rand(count, 2, generator=generator) * 30
        boxes = torch.cat([corners, corners + 20], 1)
        labels = torch.arange(count) % (2 + number % 3)
        names = NAMES[: 2 + number % 3 + smaller // 4]
        sample = DetDataSample(metainfo={"text": names, "img_shape": size})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        images.append(torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8))
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def losses(model, data):
    """Losses by name, and the gradient of all parameters as one vector."""
    torch.manual_seed(0)  # the noise of denoising queries
    found = model(**model.data_preprocessor(data, True), mode="loss")
    model.zero_grad()
    model.parse_losses(found)[0].backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return {name: value.item() for name, value in found.items()}, torch.cat(gradients)


def detector(bert, image_multiple):
    """A detector in training whose images are padded to multiples."""
    checkpointed = {"num_cp": 1}  # of two layers, so that both ways are compiled
    model = tiny_grounding_dino(bert, encoder=checkpointed, decoder=checkpointed).train()
    model.data_preprocessor.pad_size_divisor = image_multiple
    return model


def compiled(bert, backend, image_multiple=64, **settings):
    model = detector(bert, image_multiple)
    multiples = {"image_multiple": image_multiple, "text_multiple": 8}
    compile_for_training(model, CompileSettings(backend=backend, **multiples, **settings))
    return model


def test_graphs_grow_with_padded_sizes_only_and_have_no_break(bert):
    counter = CompileCounterWithBackend("eager")
    model = compiled(bert, counter)
    for number in range(4):
        losses(model, batch(number))
    first = counter.frame_count
    # Backbone and neck for each size; of the four kinds of layers one for all sizes, or two where
    # the first of them gets features that need no gradient.
    assert first <= 2 * BUCKETS + 2 * 4
    for number in range(4, 10):
        losses(model, batch(number))
    assert counter.frame_count == first
    assert not counters["graph_break"]


def test_a_backbone_of_more_sizes_than_are_compiled_runs_as_without(bert):
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.config.recompile_limit = 1
    model = compiled(bert, counter, image_sizes=2, image_multiple=32)
    sizes = [{"inputs": [torch.zeros(3, 64, 64 + 32 * n)], "data_samples": []} for n in range(4)]
    for data in sizes:
        image = model.data_preprocessor(data, True)["inputs"]
        found = model.extract_feat(image)
        for level, expected in zip(found, model.eval().extract_feat(image), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-5, atol=1e-5)
        model.train()
    assert counter.frame_count == 2 * 2  # backbone and neck


def test_validation_compiles_nothing(bert):
    counter = CompileCounterWithBackend("eager")
    model = compiled(bert, counter).eval()
    data = model.data_preprocessor(batch(0), False)
    plain = detector(bert, 64).eval()
    found = model.predict(data["inputs"], data["data_samples"], rescale=False)
    scores = [sample.pred_instances.scores for sample in found]
    data = plain.data_preprocessor(batch(0), False)
    expected = plain.predict(data["inputs"], data["data_samples"], rescale=False)
    for score, sample in zip(scores, expected, strict=True):
        torch.testing.assert_close(score, sample.pred_instances.scores, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 0


def test_padding_of_prompts_changes_no_loss(bert):
    model, plain = detector(bert, 64), detector(bert, 64)
    model.language_model.length_multiple = 16
    prompts = ["red circle. blue square. ", "cat. "]
    assert model.encode_text(prompts).token_mask.shape[1] == 16
    found, expected = losses(model, batch(2))[0], losses(plain, batch(2))[0]
    assert found == pytest.approx(expected, rel=1e-5)
    model.language_model.length_multiple = 48
    assert model.encode_text(prompts * 2).token_mask.shape[1] == 48
    model.language_model.length_multiple = 60
    assert model.encode_text([" ".join(["cat."] * 31)]).token_mask.shape[1] == 64  # at most


def test_compiled_training_through_the_triton_operator_has_the_losses_of_the_plain_one(
    bert, monkeypatch
):
    """Forward and backward with fake kernels of symbolic shapes; the reference stands in."""
    from llmdet.ops.deformable_attention import triton_kernels

    calls = []

    def forward(value, sizes, locations, weights):
        calls.append("forward")
        shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
        return sample_with_grid_sample(value, shapes, locations, weights).contiguous()

    def backward(value, sizes, locations, weights, gradient, deterministic):
        calls.append("backward")

        def gradients():
            tensors = [x.detach().requires_grad_() for x in (value, locations, weights)]
            return torch.autograd.grad(
                forward(tensors[0], sizes, *tensors[1:]), tensors, gradient.detach()
            )

        with ThreadPoolExecutor(1) as pool:  # in its own thread an operator has no autograd
            return pool.submit(gradients).result()

    plain = detector(bert, image_multiple=64)
    expected = [losses(plain, batch(number)) for number in BATCHES]
    monkeypatch.setattr(triton_kernels, "forward", forward)
    monkeypatch.setattr(triton_kernels, "backward", backward)
    monkeypatch.setattr(attention, "choose_implementation", lambda *_: "triton")
    model = compiled(bert, "aot_eager")
    for number, (values, gradient) in zip(BATCHES, expected, strict=True):
        found, found_gradient = losses(model, batch(number))
        assert found == pytest.approx(values, rel=1e-5, abs=1e-6)
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-4, atol=1e-5 * scale)
    assert set(calls) == {"forward", "backward"}
    assert not counters["graph_break"]


def test_what_will_take_long_is_logged(bert, caplog):
    with caplog.at_level(logging.INFO, logger="llmdet.engine.compilation"):
        compiled(bert, "eager", image_multiple=48)
    assert "multiples of 48 pixels" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_multiplier": 3}, "did you mean 'image_multiple'"),
        ({"image_multiple": 0}, "compile.image_multiple is 0; give a whole number from 1"),
        ({"backend": "inducter"}, "compile.backend is 'inducter'"),
        ("yes", "compile is 'yes'; give True, or a dict of image_multiple"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(given, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(Config({"compile": given}))


def test_a_strategy_beside_it_is_refused():
    with pytest.raises(ConfigError, match="was never tested: leave one out"):
        check_settings(Config({"compile": True, "strategy": {"type": "FSDP2"}}))


def test_nothing_is_compiled_unless_it_is_asked_for():
    assert CompileSettings.from_config(None) is CompileSettings.from_config(False) is None
    assert CompileSettings.from_config(True) == CompileSettings()


def test_models_of_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="not of Regression"):
        compile_for_training(Regression(), CompileSettings())
