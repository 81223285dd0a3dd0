"""Regions as what they are given as: queries, boxes, masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.regions import AnyRegion, BestQueries, MaskPool, ObjectQueries, RoIAlign
from llmdet.models.regions.any_region import MASK, QUERY, ROI
from llmdet.models.regions.base import batch_regions
from llmdet.models.transformer.boxes import cxcywh_to_xyxy

CPU = torch.device("cpu")
LEVEL = 0


@pytest.fixture
def encoder(seen):
    roi = {"type": "RoIAlign", "levels": (LEVEL,), "positions": False}
    made = AnyRegion(roi=roi, mask={"type": "MaskPool", "level": LEVEL}).eval()
    assert made.out_dims(seen.maps[LEVEL].shape[1]) == 3 * seen.maps[LEVEL].shape[1]
    return made


@pytest.fixture
def regions(seen):
    """The box of a query of the first image, a box of none and a mask in the second."""
    height, width = seen.frame.original_sizes[0]
    fitting = cxcywh_to_xyxy(seen.query_boxes)[0, 3] * torch.tensor([width, height] * 2)
    height, width = seen.frame.original_sizes[1]
    boxes = torch.stack([fitting, torch.tensor([0.0, 0, 3, height]), torch.tensor([5.0, 5, 9, 20])])
    masks = [torch.zeros(seen.frame.original_sizes[n], dtype=torch.bool) for n in (0, 1, 1)]
    masks[2][8:15, 5:9] = True
    batch = batch_regions([1, 2], CPU, boxes=boxes)
    return replace(batch, masks=tuple(masks), outlined=(False, False, True))


def test_each_region_is_read_by_the_encoder_that_suits_it(encoder, seen, regions):
    assert encoder.kinds(seen, regions) == [QUERY, ROI, MASK]
    tokens = encoder(seen, regions)
    channels = tokens.features[:, 0].unflatten(1, (3, -1))
    readers = [
        ObjectQueries(),
        RoIAlign((LEVEL,), positions=False),
        MaskPool(LEVEL),
    ]
    for number, (kind, reader) in enumerate(zip((QUERY, ROI, MASK), readers, strict=True)):
        alone = reader(seen, regions.select([number]))
        torch.testing.assert_close(channels[number, kind], alone.features[0, 0])
        torch.testing.assert_close(tokens.boxes[number], alone.boxes[0])
        others = [other for other in (QUERY, ROI, MASK) if other != kind]
        assert not channels[number, others].any()


def test_a_detector_without_queries_has_boxes_and_masks(encoder, seen, regions):
    memory = replace(seen, queries=None, query_boxes=None)
    assert encoder.kinds(memory, regions) == [ROI, ROI, MASK]
    assert encoder.kinds(memory, replace(regions, masks=None, outlined=None)) == [ROI] * 3


def test_training_draws_among_what_a_region_can_be(encoder, seen, regions):
    torch.manual_seed(0)
    encoder.train()
    drawn = [encoder.kinds(seen, regions) for _ in range(60)]
    assert [set(kinds) for kinds in zip(*drawn, strict=True)] == [{QUERY, ROI}, {ROI}, {ROI, MASK}]


def test_encoders_of_several_tokens_and_regions_without_boxes_are_refused(encoder, seen):
    with pytest.raises(ConfigError, match="one token of a region"):
        AnyRegion(query={"type": "AllQueries", "count": 6})
    with pytest.raises(ConfigError, match="give boxes"):
        encoder(seen, batch_regions([1, 0], CPU))


def test_the_best_queries_of_an_image_share_its_connector(encoder, seen, regions):
    width = sum(encoder.dims)
    best = BestQueries(3, width=width)
    assert best.out_dims(encoder.dims[QUERY]) == width
    tokens = best(seen, batch_regions([1, 1], CPU)).features
    plain = BestQueries(3)(seen, batch_regions([1, 1], CPU)).features
    assert torch.equal(tokens[..., : encoder.dims[QUERY]], plain)
    assert not tokens[..., encoder.dims[QUERY] :].any()
