import json

import numpy as np
import pytest
from PIL import Image

from llmdet.testing.programs import load_program


@pytest.fixture(scope="module")
def program(root):
    return load_program(root / "tools" / "benchmark" / "label_legibility.py")


def test_hidden_missing_and_covering_labels_are_counted(program):
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    labels = np.array([[0, 10, 10, 14], [4, 10, 14, 14], [40, 0, 50, 5], [0, 0, 0, 0]])
    tally = program.Tally()
    tally.add(labels, boxes)
    assert (tally.labels, tally.missing, tally.hidden, tally.on_own_object) == (4, 1, 2, 1)
    assert tally.covered == [0.0, 0.0, 0.5, 0.0]


def test_boxes_of_a_coco_file_are_drawn_and_measured(program, tmp_path, capsys):
    Image.new("RGB", (120, 90), "grey").save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "missing.png"}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [{"image_id": 1, "bbox": [10, 30, 50, 40], "category_id": 3}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    program.main([f"{tmp_path / 'a.json'}:{tmp_path}"])
    assert "| ours | 1 | 0.0% | 0.0% | 0.0% | 0.0% |" in capsys.readouterr().out
