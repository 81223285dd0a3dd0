"""The benchmark of deformable attention, on a small image."""

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/msda.py")


def test_every_way_is_timed_and_compared_with_the_reference(tool, capsys):
    small = ["--device", "cpu", "--height", "96", "--width", "128", "--batch", "1"]
    assert tool.main([*small, "--repeat", "1", "--passes", "both"]) == 0
    printed = capsys.readouterr().out
    assert "encoder: 1 x 256 queries" in printed
    assert "decoder: 1 x 900 queries" in printed
    rows = [
        line.split() for line in printed.splitlines() if line.endswith(("e-07", "e-06", "e+00"))
    ]
    # Forward: transformers and three of ours; with gradients one less; both for both shapes.
    assert len(rows) == 2 * (4 + 3)
    assert all(float(row[-1]) <= 3e-6 for row in rows)
    assert all(float(row[-5]) > 0 for row in rows)


def test_what_cannot_be_measured_is_named_with_its_reason(tool):
    ways, missing = tool.all_ways("cpu")
    ours = {"ours, embedding_bag", "ours, gather", "ours, grid_sample"}
    assert set(ways) == {"transformers", *ours}
    assert missing == dict.fromkeys(
        ("ours, triton", "mmcv, compiled", "transformers, hub"), "runs on CUDA devices"
    )
