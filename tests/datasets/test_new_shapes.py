"""The small set to fine-tune on: shapes without a name in the toy set, annotated exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmdet.datasets.toy.new_shapes import NEW_KINDS, NEW_SHAPES, generate_new_shapes, main
from llmdet.datasets.toy.scene import Scene, sample_scene
from llmdet.datasets.toy.vocabulary import SHAPES
from llmdet.errors import DataError


def test_a_folder_is_written_whose_classes_the_toy_set_does_not_have(tmp_path):
    main([str(tmp_path / "a"), "--train", "8", "--val", "4"])
    assert not set(NEW_SHAPES) & set(SHAPES)
    seen = set()
    for split, count in (("train", 8), ("val", 4)):
        coco = json.loads((tmp_path / "a" / f"instances_{split}.json").read_text())
        assert [category["name"] for category in coco["categories"]] == list(NEW_SHAPES)
        assert {box["image_id"] for box in coco["annotations"]} == set(range(1, count + 1))
        names = {image["file_name"] for image in coco["images"]}
        assert all((tmp_path / "a" / "images" / name).is_file() for name in names)
        seen |= names
    assert len(seen) == 12
    generate_new_shapes(tmp_path / "b", train=8, val=4)
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
    with pytest.raises(DataError, match="name another folder"):
        main([str(tmp_path / "a")])
    with pytest.raises(DataError, match="name another folder"):
        generate_new_shapes(tmp_path / "b")


@pytest.mark.parametrize("kind", NEW_KINDS[:4], ids=lambda kind: kind.shape)
def test_boxes_are_tight_around_new_shapes(kind, painted_box):
    rng = np.random.default_rng(5)
    scene = sample_scene(rng, [kind], np.ones(1), [kind])
    scene = Scene(scene.width, scene.height, "plain", scene.items[:1])
    np.testing.assert_allclose(painted_box(scene, 30), scene.items[0].box, atol=1.2)
