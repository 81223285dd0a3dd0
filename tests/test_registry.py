"""Names of a config are found here first and in mmdet next, whatever was imported before."""

import subprocess
import sys

import pytest

#: Registry of ours, a name that is mmdet's or transformers', and the module that defines it.
PARTS_OF_MMDET = (
    ("MODELS", "FasterRCNN", "mmdet.models.detectors.faster_rcnn"),
    ("TASK_UTILS", "MaxIoUAssigner", "mmdet.models.task_modules.assigners.max_iou_assigner"),
    ("DATASETS", "VOCDataset", "mmdet.datasets.voc"),
    ("DATA_SAMPLERS", "ClassAwareSampler", "mmdet.datasets.samplers.class_aware_sampler"),
    ("TRANSFORMS", "Mosaic", "mmdet.datasets.transforms.transforms"),
    # mmcv has one of this name too, that leaves boxes as they are.
    ("TRANSFORMS", "RandomFlip", "mmdet.datasets.transforms.transforms"),
    ("METRICS", "VOCMetric", "mmdet.evaluation.metrics.voc_metric"),
    ("HOOKS", "MeanTeacherHook", "mmdet.engine.hooks.mean_teacher_hook"),
    # What mmengine would have imported with its own optimizers, see llmdet/utils/import_hooks.py.
    ("OPTIMIZERS", "Adafactor", "transformers.optimization"),
    ("VISUALIZERS", "TrackLocalVisualizer", "mmdet.visualization.local_visualizer"),
)


@pytest.mark.parametrize(("registry", "name", "module"), PARTS_OF_MMDET)
def test_a_part_of_mmdet_is_found_by_a_process_that_imported_nothing(registry, name, module):
    code = f"from llmdet.registry import {registry} as parts; print(parts.get('{name}').__module__)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == module, result.stderr


def test_what_has_our_name_hides_that_of_mmdet_and_its_scope_uncovers_it():
    from llmdet.registry import TRANSFORMS

    assert TRANSFORMS.get("FixScaleResize").__module__ == "llmdet.datasets.transforms.resizing"
    mmdet = TRANSFORMS.get("mmdet.FixScaleResize").__module__
    assert mmdet == "mmdet.datasets.transforms.transforms"
    assert TRANSFORMS.get("NoSuchTransform") is None
