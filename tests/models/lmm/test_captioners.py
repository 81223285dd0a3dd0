"""Image and region captioners: tokens, losses, descriptions."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.models.lmm.connector import VisualConnector, read_connector
from llmdet.models.lmm.image_captioner import ImageCaptioner
from llmdet.models.lmm.region_captioner import RegionCaptioner
from llmdet.models.quirks import Quirks
from llmdet.models.structures import Matches

DIMS = 16
CAPTION = {"prompt": "Describe the image in detail.", "answer": "A red circle."}
GRIDS = ((-1, 2), (-2, 3))


def matches(*queries):
    """Boxes 0, 1, ... of each image were matched to these queries."""
    return Matches(
        tuple(torch.tensor(own, dtype=torch.int64) for own in queries),
        tuple(torch.arange(len(own)) for own in queries),
    )


def regions(*boxes):
    return [{"box_index": list(own), "answers": ["Red circle."] * len(own)} for own in boxes]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 4 + 1 + 9),
        ({"separator": False}, 4 + 9),
        ({"grids": ((-1, 3),)}, 9),
        ({"tokens": "queries"}, 6),
    ],
    ids=["two maps", "no separator", "one map", "queries"],
)
@pytest.mark.parametrize("look", [False, True])
def test_every_variant_of_image_tokens_trains(make_lmm, view, changes, count, look):
    lmm = make_lmm()
    captioner = ImageCaptioner(lmm, DIMS, **{"grids": GRIDS, "look": look, **changes})
    visual = captioner.tokens(view, lmm, [0, 1])
    assert visual.embeds.shape == (2, count, lmm.hidden_size)
    assert (visual.references is not None) == look
    captioner.loss(lmm, view, [CAPTION, CAPTION]).backward()
    assert all(p.grad is not None for p in captioner.parameters())


def test_a_separator_is_learned_only_between_two_maps(make_lmm):
    lmm = make_lmm()
    assert ImageCaptioner(lmm, DIMS, grids=GRIDS).separator is not None
    assert ImageCaptioner(lmm, DIMS, grids=GRIDS[:1]).separator is None


def test_the_quirk_reads_corners_as_centre_and_size(make_lmm, view):
    lmm = make_lmm()
    settings = {"grids": ((-1, 2),), "look": True}
    quirks = Quirks(image_cross_attention_xyxy=True)
    plain = ImageCaptioner(lmm, DIMS, **settings).tokens(view, lmm, [0, 1]).references
    quirky = ImageCaptioner(lmm, DIMS, quirks=quirks, **settings).tokens(view, lmm, [0, 1])
    assert plain[0, 3, 0].tolist() == [0.75, 0.75, 0.5, 0.5]
    assert quirky.references[0, 3, 0].tolist() == [0.5, 0.5, 1, 1]
    # the second image fills half the width and three quarters of the height of its maps
    assert plain[1, 3, 0].tolist() == [0.375, 0.5625, 0.25, 0.375]
    assert torch.equal(quirky.references[0], quirky.references[1])


def test_caption_tokens_that_no_image_has_leave_a_zero_for_every_parameter(make_lmm, view):
    lmm = make_lmm()
    captioner = ImageCaptioner(lmm, DIMS, grids=GRIDS)
    loss = captioner.loss(lmm, view, [None, None])
    assert loss == 0
    loss.backward()
    for parameter in [*captioner.parameters(), *lmm.parameters()]:
        assert (parameter.grad is not None) == parameter.requires_grad


def test_the_weight_scales_the_loss(make_lmm, view):
    lmm = make_lmm()
    torch.manual_seed(0)
    one = ImageCaptioner(lmm, DIMS, grids=GRIDS)
    torch.manual_seed(0)
    two = ImageCaptioner(lmm, DIMS, grids=GRIDS, loss_weight=2.0)
    captions = [CAPTION, None]
    torch.testing.assert_close(two.loss(lmm, view, captions), 2 * one.loss(lmm, view, captions))


def test_a_region_is_captioned_from_the_query_matched_to_its_box(make_lmm, view):
    lmm = make_lmm()
    captioner = RegionCaptioner(lmm, DIMS)
    seen = []
    captioner.connector.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    own = [matches([9, 9], [9]), matches([4, 2], [5])]  # the last layer's counts
    captioner.loss(lmm, view, own, regions([1, 0, 1], [0]))
    expected = view.hidden_states[1][[0, 0, 0, 1], [2, 4, 2, 5]]
    assert torch.equal(seen[0], expected)


def test_the_loss_may_be_taken_on_several_last_decoder_layers(make_lmm, view):
    lmm = make_lmm()
    captioner = RegionCaptioner(lmm, DIMS, decoder_layers=2)
    own = [matches([0, 1], [2]), matches([4, 2], [5])]
    losses = captioner.loss(lmm, view, own, regions([0], [0]))
    assert set(losses) == {"d0.loss_lmm_region", "d1.loss_lmm_region"}
    assert losses["d0.loss_lmm_region"] != losses["d1.loss_lmm_region"]


def test_boxes_beyond_the_number_of_queries_are_not_captioned(make_lmm, view):
    """With more boxes than queries some boxes have no query."""
    lmm = make_lmm()
    captioner = RegionCaptioner(lmm, DIMS)
    queries = torch.arange(6)
    crowded = Matches((queries, queries[:1]), (torch.tensor([0, 1, 2, 4, 5, 7]), queries[:1]))
    with_lost = captioner.loss(lmm, view, [crowded] * 2, regions([3, 4, 6], []))
    without = captioner.loss(lmm, view, [crowded] * 2, regions([4], []))
    torch.testing.assert_close(with_lost["d1.loss_lmm_region"], without["d1.loss_lmm_region"])


def test_a_box_that_does_not_exist_is_an_error(make_lmm, view):
    lmm = make_lmm()
    captioner = RegionCaptioner(lmm, DIMS)
    with pytest.raises(DataError, match="name box 3, but it has 2"):
        captioner.loss(lmm, view, [matches([0, 1], [2])] * 2, regions([3], []))
    uneven = [{"box_index": [0, 1], "answers": ["Red circle."]}, None]
    with pytest.raises(DataError, match="2 boxes and 1 answers"):
        captioner.loss(lmm, view, [matches([0, 1], [2])] * 2, uneven)


def test_a_box_is_described_by_the_query_that_fits_it_best(make_lmm, view):
    lmm = make_lmm()
    captioner = RegionCaptioner(lmm, DIMS)
    seen = []
    captioner.connector.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    asked = [view.corners[0, [3]] + 0.001, view.corners[1, [5, 0]]]
    texts = captioner.describe(lmm, view, asked, max_new_tokens=2, do_sample=False)
    assert [len(own) for own in texts] == [1, 2]
    assert torch.equal(seen[0], view.hidden_states[-1][[0, 1, 1], [3, 5, 0]])


def test_images_are_described_one_text_each(make_lmm, view):
    lmm = make_lmm()
    captioner = ImageCaptioner(lmm, DIMS, grids=GRIDS)
    texts = captioner.describe(lmm, view, max_new_tokens=3, do_sample=False)
    assert len(texts) == 2


def test_an_unknown_source_of_image_tokens_is_refused(make_lmm):
    with pytest.raises(ConfigError, match="memory or queries"):
        ImageCaptioner(make_lmm(), DIMS, tokens="pixels")


@pytest.mark.parametrize(
    "prefix",
    ["model.mm_projector.", "connector.", "image_captioner.connector."],
    ids=["projector file", "the original's checkpoint", "our checkpoint"],
)
def test_a_connector_is_read_from_every_kind_of_file(tmp_path, prefix):
    connector = VisualConnector(8, 12)
    names = {"projector.": "vision_projector.0.", "box_projection.": "pos_proj."}
    weights = {}
    for key, value in connector.state_dict().items():
        if "captioner" not in prefix:
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
        weights[prefix + key] = value
        weights["region_" + prefix + key] = torch.zeros_like(value)
    torch.save({"state_dict": weights, "meta": {}}, tmp_path / "c.pth")
    read = read_connector(tmp_path / "c.pth")
    assert read.keys() == connector.state_dict().keys()
    assert all(torch.equal(read[key], value) for key, value in connector.state_dict().items())


def test_a_file_without_connector_is_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="holds no connector"):
        read_connector(tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="alignment stage first"):
        read_connector(tmp_path / "absent.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_connector(tmp_path / "cut.pth")
