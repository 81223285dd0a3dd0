"""Objects of any outline, which proposals of the toy set learn from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mmengine.registry import DefaultScope

from llmdet.datasets.toy.outlines import generate_outlines, main, random_outline
from llmdet.datasets.toy.scene import Scene, sample_scene
from llmdet.datasets.toy.vocabulary import Kind
from llmdet.errors import DataError
from llmdet.registry import DATASETS
from llmdet.utils.config import load_config


def test_a_folder_is_written_as_configs_of_proposals_read_it(tmp_path, root):
    main([str(tmp_path / "a"), "--train", "6"])
    folder = tmp_path / "a"
    lines = (folder / "annotations" / "proposals_train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    settings = load_config(root / "configs/upn/toy_candidates.py").outlines_part
    settings.update(data_root=str(folder))
    with DefaultScope.overwrite_default_scope("llmdet"):
        dataset = DATASETS.build(settings)
    assert len(dataset) == len(rows) == 6
    for index, row in enumerate(rows):
        sample = dataset[index]["data_samples"]
        assert len(sample.gt_instances) == len(row["detection"]["instances"]) > 0
    generate_outlines(tmp_path / "b", 6)
    written = [file for file in sorted((tmp_path / "b").rglob("*")) if file.is_file()]
    assert len(written) == 6 + 2
    for file in written:
        assert file.read_bytes() == (folder / file.relative_to(tmp_path / "b")).read_bytes()
    with pytest.raises(DataError, match="name another folder"):
        main([str(folder)])
    with pytest.raises(DataError, match="name another folder"):
        generate_outlines(tmp_path / "b")


def test_outlines_fit_the_unit_circle_and_no_two_are_alike():
    rng = np.random.default_rng(0)
    outlines = [random_outline(rng)[0] for _ in range(200)]
    for points in outlines:
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
        np.testing.assert_allclose(points.min(0), -points.max(0), atol=1e-12)
    sizes = np.array([np.ptp(points, axis=0) for points in outlines])
    assert len(np.unique(sizes.round(9), axis=0)) == 200
    ratios = sizes[:, 0] / sizes[:, 1]
    assert ratios.min() < 0.6
    assert ratios.max() > 1 / 0.6


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_tight_around_outlines(seed, painted_box):
    kind = Kind("white", "object")
    scene = sample_scene(
        np.random.default_rng(seed),
        [kind],
        np.ones(1),
        outline_of=lambda _: random_outline(np.random.default_rng(seed)),
    )
    scene = Scene(scene.width, scene.height, "plain", scene.items[:1])
    np.testing.assert_allclose(painted_box(scene, 20), scene.items[0].box, atol=2)
