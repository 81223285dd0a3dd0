"""The data side equals recordings of the original, from strings to pixels and random numbers."""

import os
import shutil

import pytest

from llmdet.testing.parity.pipeline import check


@pytest.fixture(params=["tests/golden", "LLMDET_GOLDEN"])
def recording(request, tmp_path, root):
    """A copy of the recording, because reading rows writes an index beside them."""
    folder = root / "tests/golden/pipeline"
    if request.param == "LLMDET_GOLDEN":
        if not os.environ.get("LLMDET_GOLDEN"):
            pytest.skip("LLMDET_GOLDEN is not set")
        folder = request.getfixturevalue("golden") / "llmdet/public/pipeline"
    return shutil.copytree(folder, tmp_path / "pipeline", copy_function=shutil.copyfile)


def test_every_recorded_value_agrees(recording):
    rows = list(check(recording))
    assert [(row.name, row.note) for row in rows if not row.passed] == []
    kinds = {row.name.split("(")[0].split("/")[0].split(".")[0] for row in rows}
    assert {"remove_speculative_clauses", "clean_phrase", "vg_default", "od_label_map"} <= kinds
    assert {"sampling", "train", "test", "positive_map", "prompts"} <= kinds
