"""The benchmark of annotations."""

import pytest

from llmdet.datasets.odvg import ODVGDataset
from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/data.py")


@pytest.mark.parametrize("options", [[], ["--expressions"]])
def test_generated_rows_are_rows_that_training_reads(tool, tmp_path, options):
    path = tmp_path / "rows.jsonl"
    tool.main(["generate", str(path), "--rows", "20", *options])
    dataset = ODVGDataset(ann_file=str(path))
    names = [dataset.get_data_info(index)["img_path"] for index in range(20)]
    assert len(dataset) == len(set(names)) == 20
    assert dataset.get_data_info(3)["instances"]
