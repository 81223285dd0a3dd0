"""Nothing between images and losses or boxes waits for the device.

Weights and images are tensors of a GPU that need not exist: they have shapes and no values, so
that whatever would ask the device for a value (``item``, a branch on a tensor, boolean indexing)
is an error here.
"""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    unset_fake_temporarily,
)

from llmdet.datasets.sample import GroundingSample
from llmdet.datasets.toy.models import tiny_bert
from llmdet.models.detectors.settings import TestSettings
from llmdet.models.structures import Matches
from llmdet.prompts.types import Classes
from llmdet.testing.fake_device import to_fake_device
from llmdet.testing.models import tiny_grounding_dino

SIZES = [(64, 96), (48, 96)]
NAMES = [("cat", "dog"), ("red circle",)]


@pytest.fixture(scope="module")
def mode():
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory, mode):
    return to_fake_device(tiny_grounding_dino(tiny_bert(tmp_path_factory.mktemp("bert"))), mode)


@pytest.fixture
def samples(model):
    made = []
    for names, size in zip(NAMES, SIZES, strict=True):
        prompt = Classes(names)
        tokenized = tuple(model.language_model.prompts(prompt))
        grounding = GroundingSample(prompt=prompt, tokenized=tokenized)
        made.append(DetDataSample(metainfo={"img_shape": size, "grounding": grounding}))
    return made


@pytest.mark.parametrize("limit", ["image", "chunk"])
def test_detection_asks_the_device_once_for_all_boxes_of_all_prompts_and_images(
    model, mode, samples, monkeypatch, limit
):
    transfers = []

    def copy_to_host(tensors):
        """The one transfer, which gives zeros: nothing here has values."""
        assert {x.device.type for x in tensors} == {"cuda"}
        transfers.append(len(tensors))
        with unset_fake_temporarily():
            return [torch.zeros(x.shape, dtype=x.dtype, device="cpu") for x in tensors]

    monkeypatch.setattr("llmdet.models.detectors.inference.copy_to_host", copy_to_host)
    settings = TestSettings(limit_per=limit, chunks_per_forward=1, chunked_size=1, max_per_img=15)
    monkeypatch.setattr(model, "test_cfg", settings)
    for sample in samples:
        prompt = sample.grounding.prompt
        tokenized = model.language_model.prompts(prompt, settings.prompt_options)
        grounding = GroundingSample(prompt=prompt, tokenized=tokenized)
        sample.set_metainfo({"grounding": grounding, "scale_factor": (1.0, 1.0)})
    with mode:
        found = model.detect(torch.empty(2, 3, 64, 96, device="cuda"), samples).detections
    assert transfers == [2 * 4]  # boxes, scores, labels, queries of both images
    assert [len(part) for part in found] == [15 if limit == "image" else 30, 15]
    assert {part.bboxes.device.type for part in found} == {"cpu"}
    assert found[0].label_names[0] == "cat"


def test_a_training_step_asks_the_device_for_nothing_but_the_costs_of_matching(
    model, mode, samples, monkeypatch
):
    def match(predictions, proposals, targets):
        """Costs go to the host in one piece, which is the one wait; here the first ones win."""
        layers = len(predictions.logits) + 1
        index = [torch.arange(len(target.boxes), device="cuda") for target in targets]
        return [Matches(tuple(index), tuple(index)) for _ in range(layers)]

    generator = model.dn_query_generator
    monkeypatch.setattr(model.bbox_head, "match", match)
    monkeypatch.setattr(
        generator,
        "noise_labels",
        lambda labels, groups, _: labels.repeat(2 * groups),  # a source of noise has values
    )
    monkeypatch.setattr(
        generator, "noise_boxes", lambda boxes, groups, _: boxes.repeat(2 * groups, 1)
    )
    monkeypatch.setattr("llmdet.models.transformer.denoising._random_numbers", lambda device: None)
    with mode:
        images = torch.empty(2, 3, 64, 96, device="cuda")
        for sample, count in zip(samples, (2, 1), strict=True):
            sample.gt_instances = InstanceData(
                bboxes=torch.empty(count, 4, device="cuda"),
                labels=torch.empty(count, dtype=torch.long, device="cuda"),
            )
        losses = model.train().loss(images, samples)
        model.eval()
        assert len(losses) == 15
        assert {loss.device.type for loss in losses.values()} == {"cuda"}


def test_asking_is_an_error_here(mode):
    with mode, pytest.raises((DataDependentOutputException, UnsupportedFakeTensorException)):
        torch.empty(3, device="cuda").sum().item()
