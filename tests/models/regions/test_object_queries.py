"""Regions as object queries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.regions import AllQueries, BestQueries, ObjectQueries
from llmdet.models.regions.base import batch_regions
from llmdet.models.transformer.boxes import cxcywh_to_xyxy

CPU = torch.device("cpu")


def test_a_region_whose_query_is_known_is_that_query_and_its_box(seen, three_regions):
    tokens = ObjectQueries()(seen, three_regions)
    image, query = [0, 0, 1], [0, 1, 2]
    assert torch.equal(tokens.features[:, 0], seen.queries[image, query])
    assert torch.equal(tokens.boxes[:, 0], cxcywh_to_xyxy(seen.query_boxes[image, query]))


def test_a_box_is_the_query_that_fits_it_best_and_stands_where_it_is(seen, frame):
    relative = cxcywh_to_xyxy(seen.query_boxes)
    chosen = torch.stack([relative[0, 3], relative[1, 5], relative[1, 0]]) + 0.001
    image = torch.tensor([0, 1, 1])
    sizes = torch.tensor([[64.0, 64, 64, 64], [64, 96, 64, 96]])  # of the original images
    regions = batch_regions([1, 2], CPU, boxes=chosen * sizes[image])
    tokens = ObjectQueries()(seen, regions)
    assert torch.equal(tokens.features[:, 0], seen.queries[image, [3, 5, 0]])
    torch.testing.assert_close(tokens.boxes[:, 0], chosen.clamp(0, 1))


def test_regions_of_a_part_of_the_batch_keep_their_images(seen):
    boxes = torch.rand(5, 4).cumsum(1) * 20
    regions = batch_regions([3, 2], CPU, boxes=boxes)
    whole = ObjectQueries()(seen, regions)
    parts = [ObjectQueries()(seen, part) for part in regions.split(2)]
    assert [part.counts for part in regions.split(2)] == [(2, 0), (1, 1), (0, 1)]
    assert torch.equal(torch.cat([part.features for part in parts]), whole.features)


def test_an_image_is_all_its_queries(seen):
    tokens = AllQueries(6)(seen, batch_regions([0, 1], CPU))
    assert torch.equal(tokens.features[0], seen.queries[1])
    with pytest.raises(ConfigError, match=r"AllQueries\(count=900\) sees 6"):
        AllQueries()(seen, batch_regions([0, 1], CPU))


def test_the_best_queries_stand_as_one_reads(seen):
    centres = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.3], [0.2, 0.9], [0.1, 0.6], [0.5, 0.2]])
    boxes = torch.cat([centres, torch.full_like(centres, 0.1)], 1).expand(2, 6, 4)
    scores = torch.tensor([[3.0, 1, 2, 5, 4, 0], [0, 5, 1, 2, 3, 4]])
    seen = replace(seen, query_boxes=boxes, query_scores=scores)
    tokens = BestQueries(4)(seen, batch_regions([1, 2], CPU))
    for region, (image, order) in enumerate(
        [(0, [2, 0, 4, 3]), (1, [5, 4, 1, 3]), (1, [5, 4, 1, 3])]
    ):
        assert torch.equal(tokens.features[region], seen.queries[image, order])
        assert torch.equal(tokens.boxes[region], cxcywh_to_xyxy(boxes[image, order]))


@pytest.mark.parametrize(("count", "message"), [(7, "sees 6 object"), (2, "sees no scores")])
def test_best_queries_need_enough_queries_with_scores(seen, count, message):
    seen = seen if count > 6 else replace(seen, query_scores=None)
    with pytest.raises(ConfigError, match=message):
        BestQueries(count)(seen, batch_regions([1, 0], CPU))


def test_without_a_decoder_there_are_no_queries(seen, three_regions):
    memory = replace(seen, queries=None, query_boxes=None)
    with pytest.raises(ConfigError, match="decoder has run"):
        ObjectQueries()(memory, three_regions)


def test_a_region_without_box_and_query_is_refused(seen):
    with pytest.raises(ConfigError, match="give boxes"):
        ObjectQueries()(seen, batch_regions([1, 0], CPU))
