"""Pictures in the log of a training carry what the language model says of them."""

import numpy as np
import torch
from mmengine.structures import InstanceData

from llmdet.visualization.descriptions import describe_first
from llmdet.visualization.visualizer import draw_sample

BATCH = {"inputs": [torch.full((3, 64, 64), 90, dtype=torch.uint8)] * 2}


def detected(samples, number=14):
    sample = samples(2)
    sample.set_metainfo({"tokens_positive": None, "pad_shape": (64, 64)})
    corners = torch.arange(number, dtype=torch.float32)[:, None].repeat(1, 4)
    sample.pred_instances = InstanceData(
        bboxes=corners + torch.tensor([0.0, 0, 20, 20]),
        scores=torch.linspace(0.1, 0.9, number),
        labels=torch.zeros(number, dtype=torch.int64),
        label_names=["ball"] * number,
    )
    return sample


def test_image_and_best_boxes_are_described_and_drawn(make_llmdet, samples):
    model = make_llmdet().eval()
    sample = detected(samples)
    state = torch.get_rng_state()
    describe_first(model, BATCH, sample)
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(sample.image_description, str)
    found = sample.pred_instances
    assert len(found) == len(found.captions) == 12
    assert found.scores[0] == found.scores.max()
    image = np.zeros((128, 128, 3), np.uint8)
    found.captions = ["a large ball"] * 12
    drawn = draw_sample(image, sample, draw_gt=False)
    found.captions = ["another"] * 12
    assert not np.array_equal(drawn, draw_sample(image, sample, draw_gt=False))


def test_a_model_without_captioners_is_left_alone(make_llmdet, samples):
    model = make_llmdet(lmm=None, image_captioner=None, region_captioner=None)
    sample = detected(samples)
    describe_first(model, BATCH, sample)
    assert "image_description" not in sample
    assert len(sample.pred_instances) == 14
