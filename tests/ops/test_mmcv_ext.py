"""The stand-in for mmcv's compiled operators against torchvision, and its manners."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torchvision

import llmdet  # noqa: F401  (installs the stand-in)
from llmdet.errors import ConfigError
from llmdet.ops import mmcv_finder


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter, which must succeed."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def random_boxes(number: int, generator: torch.Generator) -> torch.Tensor:
    corners = torch.rand(number, 2, generator=generator) * 80
    return torch.cat([corners, corners + torch.rand(number, 2, generator=generator) * 40], dim=1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_mmdet_models_import_after_llmdet_without_compiled_operators():
    printed = run_python(
        """
        import llmdet, mmdet.models, mmcv._ext
        from llmdet.ops.mmcv_finder import is_stand_in
        print(is_stand_in(mmcv._ext))
        """
    )
    assert printed == "True"


def test_a_loaded_compiled_extension_is_left_alone():
    printed = run_python(
        """
        import sys, types

        class Compiled(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return lambda *args, **kwargs: f"compiled {name}"

        compiled = Compiled("mmcv._ext")
        sys.modules["mmcv._ext"] = compiled
        import llmdet, mmdet.models, mmcv.ops
        print(mmcv.ops.get_compiler_version())
        """
    )
    assert printed == "compiled get_compiler_version"


def test_a_compiled_extension_that_python_can_find_is_preferred(tmp_path):
    (tmp_path / "_ext.py").write_text(
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n"
        "        raise AttributeError(name)\n"
        "    return lambda *args, **kwargs: 'compiled ' + name\n"
    )
    printed = run_python(
        f"""
        import llmdet, mmcv
        mmcv.__path__.append({str(tmp_path)!r})
        import mmcv._ext, mmcv.ops
        from llmdet.ops.mmcv_finder import is_stand_in
        print(is_stand_in(mmcv._ext), mmcv.ops.get_compiler_version())
        """
    )
    assert printed == "False compiled get_compiler_version"


def test_installing_twice_adds_one_finder():
    mmcv_finder.install()
    mmcv_finder.install()
    ours = [f for f in sys.meta_path if isinstance(f, mmcv_finder.StandInFinder)]
    assert len(ours) == 1


def test_an_operator_without_stand_in_names_itself_and_the_remedy():
    from mmcv.ops import nms_rotated

    with pytest.raises(ConfigError, match=r"'nms_rotated'.*--no-build-isolation"):
        nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)


def test_max_pooled_roi_align_is_refused_instead_of_averaged():
    from mmcv.ops import RoIAlign

    pool = RoIAlign((2, 2), pool_mode="max")
    with pytest.raises(ConfigError, match="pool_mode='max'"):
        pool(torch.rand(1, 3, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_keeps_the_boxes_that_torchvision_keeps(generator, threshold):
    from mmcv.ops import nms

    boxes, scores = random_boxes(200, generator), torch.rand(200, generator=generator)
    detections, kept = nms(boxes, scores, threshold)
    expected = torchvision.ops.nms(boxes, scores, threshold)
    assert torch.equal(kept, expected)
    assert torch.equal(detections, torch.cat([boxes, scores[:, None]], dim=1)[expected])


def test_nms_counts_the_last_pixel_when_offset_is_one():
    from mmcv.ops import nms

    # Pixels 0..9 and 5..14 share 5 of 15 columns: IoU 1/3 with the offset, 4/14 without.
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], dtype=np.float32)
    scores = np.array([0.9, 0.8], dtype=np.float32)
    assert nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]
    assert nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]


def test_batched_nms_equals_torchvision_per_class(generator):
    from mmcv.ops import batched_nms

    boxes, scores = random_boxes(300, generator), torch.rand(300, generator=generator)
    classes = torch.randint(0, 5, (300,), generator=generator)
    _, kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.4})
    assert torch.equal(kept, torchvision.ops.batched_nms(boxes, scores, classes, 0.4))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_and_its_gradient_equal_torchvision(generator, aligned, sampling_ratio):
    from mmcv.ops import RoIAlign

    features = torch.rand(2, 3, 16, 20, generator=generator, dtype=torch.float64)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    image = torch.randint(0, 2, (6, 1), generator=generator)
    rois = torch.cat([image, random_boxes(6, generator)], dim=1).double()
    output = RoIAlign((3, 2), 0.25, sampling_ratio, aligned=aligned)(ours, rois)
    expected = torchvision.ops.roi_align(theirs, rois, (3, 2), 0.25, sampling_ratio, aligned)
    weight = torch.rand(expected.shape, generator=generator, dtype=torch.float64)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_deformable_attention_and_its_gradients_equal_mmcvs_pytorch_version(generator):
    pytest.importorskip("llmdet.ops.deformable_attention")
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[6, 4], [3, 2]])
    start = torch.tensor([0, 24])
    value = torch.rand(2, 30, 4, 8, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 5, 4, 2, 3, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 5, 4, 2, 3, generator=generator, dtype=torch.float64)
    ours = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    theirs = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    output = MultiScaleDeformableAttnFunction.apply(ours[0], shapes, start, ours[1], ours[2], 64)
    expected = multi_scale_deformable_attn_pytorch(theirs[0], shapes, theirs[1], theirs[2])
    probe = torch.rand(expected.shape, generator=generator, dtype=torch.float64)
    (output * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(output, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
