"""Image and region captioners: tokens, losses, descriptions."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch

from llmdet.errors import ConfigError, DataError
from llmdet.models.outputs import Text
from llmdet.models.quirks import Quirks
from llmdet.models.regions.base import batch_regions
from llmdet.models.structures import Matches
from llmdet.models.systems.llmdet.captioner import (
    IMAGE_CAPTIONER,
    REGION_CAPTIONER,
    Captioner,
    CaptionerSettings,
)
from llmdet.models.systems.llmdet.teaching import image_regions, matched_regions
from llmdet.prompts.conversation import ask
from llmdet.registry import MODELS

DIMS = 16
CPU = torch.device("cpu")
LOOK = {"every": 2, "embed_dims": DIMS, "num_heads": 4, "num_levels": 3}
IMAGE = ask("<image>\nDescribe the image in detail.", "A red circle.")
GRIDS = {"type": "GridCells", "grids": ((-1, 2), (-2, 3))}
ONE_GRID = {"type": "GridCells", "grids": ((-1, 3),)}


def region(box):
    return ask(f"<region:{box}>\nDescribe the region in a phrase.", "Red circle.")


def build(defaults, lmm, quirks=None, **changes):
    settings = CaptionerSettings(**{**defaults, **changes})
    encoder = MODELS.build(settings.encoder)
    return Captioner(settings, encoder, Text(), lmm, DIMS, lmm.adapter, quirks or Quirks())


def image_captioner(lmm, **changes):
    return build(IMAGE_CAPTIONER, lmm, **{"encoder": GRIDS, **changes})


def region_captioner(lmm, **changes):
    return build(REGION_CAPTIONER, lmm, **changes)


def image_loss(captioner, lmm, seen, *conversations):
    tokens = [captioner.tokenized(own) for own in conversations]
    return captioner.loss(lmm, seen, image_regions(tokens, CPU), list(chain(*tokens)))


def region_loss(captioner, lmm, seen, matches, *conversations):
    tokens = [captioner.tokenized(own) for own in conversations]
    counts = [int(max(own, default=-1)) + 1 for own in matches.box_indices]
    boxes = [torch.rand(count, 4) for count in counts]
    regions, known = matched_regions(tokens, matches, boxes, seen)
    return captioner.loss(lmm, seen, regions, known)


def matches(*queries):
    """Boxes 0, 1, ... of each image were matched to these queries."""
    return Matches(
        tuple(torch.tensor(own, dtype=torch.int64) for own in queries),
        tuple(torch.arange(len(own)) for own in queries),
    )


def features_seen_by(captioner):
    """What goes into the connector from now on."""
    found = []
    captioner.connector.register_forward_hook(lambda _, args, __: found.append(args[0]))
    return found


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 4 + 1 + 9),
        ({"separator": False}, 4 + 9),
        ({"encoder": ONE_GRID}, 9),
        ({"encoder": {"type": "AllQueries", "count": 6}}, 6),
    ],
    ids=["two maps", "no separator", "one map", "queries"],
)
@pytest.mark.parametrize("look", [False, True])
def test_every_variant_of_image_tokens_trains(make_lmm, seen, changes, count, look):
    lmm = make_lmm(look=LOOK)
    captioner = image_captioner(lmm, look=look, **changes)
    tokens = captioner.encode(seen, batch_regions([1, 1], CPU))
    assert tokens.features.shape == (2, count, lmm.hidden_size)
    assert captioner.conversations.settings.slots == (("image", count),)
    image_loss(captioner, lmm, seen, [IMAGE], [IMAGE]).backward()
    assert all(p.grad is not None for p in captioner.parameters())
    looked = [p.grad is not None for p in lmm.reference_head.parameters()]
    assert looked == [look] * len(looked)


def test_a_separator_is_learned_only_between_two_maps(make_lmm):
    lmm = make_lmm()
    assert image_captioner(lmm).separator is not None
    assert image_captioner(lmm, encoder=ONE_GRID).separator is None


def test_the_quirk_reads_corners_as_centre_and_size(make_lmm, seen):
    lmm = make_lmm(look=LOOK)
    settings = {"encoder": {"type": "GridCells", "grids": ((-1, 2),)}, "look": True}
    both = batch_regions([1, 1], CPU)

    def references(captioner):
        return captioner._references(seen, both, captioner.encode(seen, both).boxes)

    plain = references(image_captioner(lmm, **settings))
    quirky = references(
        image_captioner(lmm, quirks=Quirks(image_cross_attention_xyxy=True), **settings)
    )
    assert plain[0, 3, 0].tolist() == [0.75, 0.75, 0.5, 0.5]
    assert quirky[0, 3, 0].tolist() == [0.5, 0.5, 1, 1]
    # the second image fills half the width and three quarters of the height of its maps
    assert plain[1, 3, 0].tolist() == [0.375, 0.5625, 0.25, 0.375]
    assert torch.equal(quirky[0], quirky[1])


def test_conversations_that_no_image_has_leave_a_zero_for_every_parameter(make_lmm, seen):
    lmm = make_lmm(look=LOOK)
    captioner = image_captioner(lmm)
    loss = image_loss(captioner, lmm, seen, [], [region(0)])
    assert loss == 0
    loss.backward()
    for parameter in [*captioner.parameters(), *lmm.parameters()]:
        assert (parameter.grad is not None) == parameter.requires_grad


def test_the_weight_scales_the_loss(make_lmm, seen):
    lmm = make_lmm()
    torch.manual_seed(0)
    one = image_captioner(lmm)
    torch.manual_seed(0)
    two = image_captioner(lmm, loss_weight=2.0)
    doubled = image_loss(two, lmm, seen, [IMAGE], [])
    torch.testing.assert_close(doubled, 2 * image_loss(one, lmm, seen, [IMAGE], []))


def test_an_image_of_a_batch_may_have_several_conversations_or_none(make_lmm, seen):
    lmm = make_lmm()
    captioner = image_captioner(lmm)
    found = features_seen_by(captioner)
    image_loss(captioner, lmm, seen, [], [IMAGE, region(0), IMAGE])
    cells = captioner.encoder(seen, batch_regions([0, 1], CPU)).features
    assert torch.equal(found[0], cells[:, :4].expand(2, -1, -1))


def test_a_second_image_of_a_sample_is_an_error(make_lmm, seen):
    lmm = make_lmm()
    two = ask("Compare <image> and <image>.", "Equal.")
    with pytest.raises(DataError, match="marks a second <image>"):
        image_loss(image_captioner(lmm), lmm, seen, [IMAGE], [two])


def test_a_region_is_captioned_from_the_query_matched_to_its_box(make_lmm, seen):
    lmm = make_lmm(look=LOOK)
    captioner = region_captioner(lmm)
    found = features_seen_by(captioner)
    own = matches([4, 2], [5])
    region_loss(captioner, lmm, seen, own, [region(1), region(0), IMAGE, region(1)], [region(0)])
    assert torch.equal(found[0][:, 0], seen.queries[[0, 0, 0, 1], [2, 4, 2, 5]])


def test_one_conversation_may_speak_of_several_regions(make_lmm, seen):
    lmm = make_lmm(look=LOOK)
    captioner = region_captioner(lmm, max_length=60)
    found = features_seen_by(captioner)
    both = ask("Compare <region:1> with <region:0>.", "Larger.")
    region_loss(captioner, lmm, seen, matches([4, 2], [5]), [both], [region(0)]).backward()
    assert torch.equal(found[0][:, 0], seen.queries[[0, 0, 1], [2, 4, 5]])


def test_boxes_beyond_the_number_of_queries_are_not_captioned(make_lmm, seen):
    """With more boxes than queries some boxes have no query."""
    lmm = make_lmm(look=LOOK)
    captioner = region_captioner(lmm)
    queries = torch.arange(6)
    crowded = Matches((queries, queries[:1]), (torch.tensor([0, 1, 2, 4, 5, 7]), queries[:1]))
    with_lost = region_loss(captioner, lmm, seen, crowded, [region(n) for n in (3, 4, 6)], [])
    without = region_loss(captioner, lmm, seen, crowded, [region(4)], [])
    torch.testing.assert_close(with_lost, without)


def test_a_box_that_does_not_exist_is_an_error(make_lmm, seen):
    lmm = make_lmm()
    captioner = region_captioner(lmm)
    with pytest.raises(DataError, match="names box 3, but it has 2"):
        region_loss(captioner, lmm, seen, matches([0, 1], [2]), [region(3)], [])


def test_a_box_is_described_by_the_query_that_fits_it_best(make_lmm, seen):
    lmm = make_lmm(look=LOOK)
    captioner = region_captioner(lmm)
    found = features_seen_by(captioner)
    corners = torch.cat([seen.query_boxes[0, [3]], seen.query_boxes[1, [5, 0]]])
    corners = torch.cat(
        [corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2], 1
    )
    sizes = torch.tensor([[64.0, 64, 64, 64], [64, 96, 64, 96], [64, 96, 64, 96]])
    regions = batch_regions([1, 2], CPU, boxes=corners * sizes)
    texts = captioner.describe(lmm, seen, regions, max_new_tokens=2)
    assert len(texts) == 3
    assert torch.equal(found[0][:, 0], seen.queries[[0, 1, 1], [3, 5, 0]])
    assert captioner.describe(lmm, seen, regions, max_new_tokens=2, batch_size=2) == texts


def test_images_are_described_one_text_each(make_lmm, seen):
    lmm = make_lmm()
    captioner = image_captioner(lmm)
    assert len(captioner.describe(lmm, seen, batch_regions([1, 1], CPU), max_new_tokens=3)) == 2


def test_tokens_of_a_worker_are_used_as_they_are(make_lmm, seen):
    lmm = make_lmm()
    captioner = image_captioner(lmm)
    tokens = captioner.conversations(ask("<image>\nWhat?", "A star."))
    ready = replace(IMAGE, tokens=tokens)
    assert captioner.tokenized([ready, region(0)]) == [tokens]


def test_tokens_that_were_made_with_other_settings_are_refused(make_lmm):
    lmm = make_lmm()
    captioner, other = image_captioner(lmm), image_captioner(lmm, encoder=ONE_GRID)
    ready = replace(IMAGE, tokens=other.conversations(IMAGE))
    with pytest.raises(ConfigError, match=r"slots is \(\('image', 9\),\) there and"):
        captioner.tokenized([ready])
