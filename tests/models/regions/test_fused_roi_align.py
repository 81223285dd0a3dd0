"""GPT4RoI's region encoder: where it reads, with its faults and without."""

import numpy as np
import pytest
import torch

from llmdet.datasets.views import ViewSettings, make_view
from llmdet.errors import ConfigError
from llmdet.models.regions import FusedRoIAlign, MaskPool
from llmdet.models.regions.base import batch_regions
from llmdet.models.regions.fused_roi_align import exchange
from llmdet.models.vision.views import TowerOutput, collate_views

CPU = torch.device("cpu")
SIZES = ((40, 80), (50, 50))
BOXES = torch.tensor([[10.0, 0, 40, 20], [20, 10, 60, 40], [5, 5, 25, 45]])


def seen(fit="pad", side=64, mirrored=False):
    views = [
        make_view(
            np.zeros((*size, 3), np.uint8), ViewSettings((side, side), fit=fit), mirrored=mirrored
        )
        for size in SIZES
    ]
    maps = tuple(torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    return TowerOutput(maps[1], maps, torch.ones(2, 2, 2), collate_views(views).frame)


def encoder(**options):
    torch.manual_seed(1)
    return FusedRoIAlign(64, 24, levels=(0, 1), scales=(2, 1), rounds=2, bins=3, **options)


def read_places(monkeypatch, encoder, view):
    """Where features are read, and of what boxes the code is made."""
    kept = []
    monkeypatch.setattr(encoder, "pooled", lambda maps, rois, image: kept.append(rois))
    monkeypatch.setattr(encoder, "joined", lambda pooled, places: places)
    found = encoder(view, batch_regions([2, 1], CPU, boxes=BOXES))
    return kept[0], found.boxes[:, 0]


def test_a_batch_is_its_regions_one_by_one():
    view, encode = seen(), encoder()
    whole = encode(view, batch_regions([2, 1], CPU, boxes=BOXES))
    assert whole.features.shape == (3, 1, 24)
    alone = encode(view, batch_regions([0, 1], CPU, boxes=BOXES[2:]))
    torch.testing.assert_close(whole.features[2:], alone.features)
    assert not torch.allclose(whole.features[0], whole.features[1], atol=1e-3)
    whole.features.sum().backward()
    assert all(weight.grad is not None for weight in encode.parameters())


def test_no_region_is_no_token():
    assert encoder()(seen(), batch_regions([0, 0], CPU, boxes=BOXES[:0])).features.shape == (
        0,
        1,
        24,
    )


def test_boxes_are_read_where_they_lie_in_the_view(monkeypatch):
    rois, places = read_places(monkeypatch, encoder(), seen())
    # The wide image fills the middle half of its view.
    torch.testing.assert_close(rois[0], torch.tensor([10 / 80, 0.25, 40 / 80, 0.5]))
    torch.testing.assert_close(places[0], torch.tensor([10 / 80, 0, 40 / 80, 20 / 40]))
    torch.testing.assert_close(rois[2], BOXES[2] / 50)
    mirrored, _ = read_places(monkeypatch, encoder(), seen(mirrored=True))
    torch.testing.assert_close(mirrored[0], torch.tensor([40 / 80, 0.25, 70 / 80, 0.5]))


def test_the_faults_of_the_released_weights_are_there_on_request(monkeypatch):
    crop = seen(fit="crop")
    whole = BOXES / torch.tensor([[80.0, 40] * 2, [80, 40] * 2, [50, 50] * 2])
    rois, places = read_places(monkeypatch, encoder(legacy_crop=True), crop)
    torch.testing.assert_close(rois, whole)
    torch.testing.assert_close(places, whole)
    rois, _ = read_places(monkeypatch, encoder(legacy_crop=True, legacy_roi_scale=32.0), crop)
    torch.testing.assert_close(rois, whole / 2)
    right, _ = read_places(monkeypatch, encoder(), crop)
    # The middle 40 of 80 columns fill the view; the box begins to the left of them.
    torch.testing.assert_close(right[0], torch.tensor([0.0, 0, 0.5, 0.5]))


def test_levels_exchange_quarters_of_their_channels():
    fine, coarse = torch.zeros(1, 8, 4, 4), torch.ones(1, 8, 2, 2)
    fine[:, 4:6], coarse[:, 6:] = 2.0, 3.0
    first, second = exchange([fine, coarse])
    assert first[0, :, 0, 0].tolist() == [0, 0, 0, 0, 3, 3, 2, 2]  # the finer neighbour is itself
    assert second[0, :, 0, 0].tolist() == [1, 1, 1, 1, 3, 3, 2, 2]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: FusedRoIAlign(64, levels=(0, 1), scales=(1,)), "2 levels and 1 scales"),
        (lambda: FusedRoIAlign(96), "multiple of it"),
        (lambda: encoder().out_dims([64, 128]), "64, 128 channels"),
        (lambda: encoder()(seen(), batch_regions([0, 0], CPU)), MaskPool.__name__),
    ],
)
def test_what_does_not_fit_is_said(make, what):
    with pytest.raises(ConfigError, match=what):
        make()
