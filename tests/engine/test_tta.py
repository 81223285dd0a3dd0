"""Merging the detections of several views, and switching a config to them."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from llmdet.engine import GroundingTTAModel, use_test_time_augmentation
from llmdet.errors import ConfigError


class Detector(BaseModel):
    def forward(self, inputs, data_samples=None, mode="tensor"):
        return data_samples


def view(boxes, scores, labels, **metainfo) -> DetDataSample:
    names = ["cat", "dog"]
    sample = DetDataSample(metainfo={"ori_shape": (100, 200), **metainfo})
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
        label_names=[names[label] for label in labels],
    )
    return sample


def merge(*views: DetDataSample, **settings) -> InstanceData:
    (merged,) = GroundingTTAModel(Detector(), **settings).merge_preds([list(views)])
    return merged.pred_instances


def test_a_box_found_twice_stays_once_with_its_best_score_and_name():
    merged = merge(
        view([[10, 10, 50, 50]], [0.6], [1]),
        view([[11, 10, 51, 50], [100, 0, 120, 20]], [0.9, 0.3], [1, 0]),
    )
    assert merged.scores.tolist() == pytest.approx([0.9, 0.3])
    assert merged.bboxes[0].tolist() == [11, 10, 51, 50]
    assert merged.label_names == ["dog", "cat"]


def test_boxes_of_different_classes_do_not_suppress_each_other():
    merged = merge(view([[10, 10, 50, 50]], [0.6], [0]), view([[10, 10, 50, 50]], [0.9], [1]))
    assert merged.labels.tolist() == [1, 0]


def test_flipped_views_are_flipped_back():
    flipped = view([[150, 10, 190, 50]], [0.5], [0], flip=True, flip_direction="horizontal")
    assert merge(flipped).bboxes.tolist() == [[10, 10, 50, 50]]


def test_no_more_boxes_are_kept_than_asked_for():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(8)]
    merged = merge(view(boxes, [0.1 * i for i in range(8)], [0] * 8), max_per_img=3)
    assert merged.scores.tolist() == pytest.approx([0.7, 0.6, 0.5])


def test_views_that_were_limited_per_prompt_are_not_cut():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(8)]
    each_prompt = view(boxes, [0.1 * i for i in range(8)], [0] * 8, limit_per="chunk")
    assert len(merge(each_prompt, max_per_img=3)) == 8


def test_views_without_detections_merge_to_none():
    assert len(merge(view([], [], []), view([], [], []))) == 0


def config(pipeline, **changes) -> Config:
    dataset = {"type": "ConcatDataset", "datasets": [{"type": "CocoDataset", "pipeline": pipeline}]}
    return Config(
        {
            "model": {"type": "GroundingDINO", "test_cfg": {"max_per_img": 7}},
            "test_dataloader": {"dataset": dataset},
            **changes,
        }
    )


LOAD = {"type": "LoadImageFromFile"}
PACK = {"type": "PackDetInputs"}


def test_the_test_pipeline_is_run_at_three_scales():
    settings = config([LOAD, {"type": "FixScaleResize", "scale": (800, 1333)}, PACK])
    use_test_time_augmentation(settings)
    assert settings.model.type == "GroundingTTAModel"
    assert settings.model.max_per_img == 7
    assert settings.model.module.type == "GroundingDINO"
    load, augment = settings.test_dataloader.dataset.datasets[0].pipeline
    assert load == LOAD
    views, pack = augment.transforms
    assert [tuple(step.scale) for step in views] == [(600, 1000), (800, 1333), (1000, 1666)]
    assert pack == [PACK]


def test_the_configs_own_augmentation_has_precedence():
    pipeline = [LOAD, {"type": "TestTimeAug", "transforms": [[PACK]]}]
    settings = config([LOAD, PACK], tta_pipeline=pipeline, tta_model={"type": "DetTTAModel"})
    use_test_time_augmentation(settings)
    assert settings.model.type == "DetTTAModel"
    assert settings.test_dataloader.dataset.datasets[0].pipeline == pipeline


def test_a_pipeline_without_resize_is_refused():
    with pytest.raises(ConfigError, match="tta_pipeline"):
        use_test_time_augmentation(config([LOAD, PACK]))


def test_every_set_of_a_benchmark_is_seen_at_all_scales():
    settings = config([])
    resize = {"type": "FixScaleResize", "scale": (800, 1333)}
    sets = {name: {"type": "CocoDataset", "pipeline": [LOAD, resize, PACK]} for name in "ab"}
    settings.test_dataloader.dataset = {"type": "BenchmarkSets", "sets": sets}
    use_test_time_augmentation(settings)
    for part in settings.test_dataloader.dataset.sets.values():
        assert [step.type for step in part.pipeline] == ["LoadImageFromFile", "TestTimeAug"]
