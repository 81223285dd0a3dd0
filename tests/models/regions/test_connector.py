"""Trained connectors, from every kind of file."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import CheckpointError
from llmdet.models.regions.connector import VisualConnector, read_connector


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
