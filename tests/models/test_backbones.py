"""Swin's attention against mmdet's, and its recomputation."""

import pytest
import torch
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from mmdet.models.backbones.swin import ShiftWindowMSA, WindowMSA

from llmdet.models.backbones import SwinTransformer, WindowAttention

SMALL = {"embed_dims": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "window_size": 4}


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_in_windows_is_that_of_mmdet(shift):
    theirs = ShiftWindowMSA(8, 2, 4, shift).double()
    torch.nn.init.normal_(theirs.w_msa.relative_position_bias_table)
    x = torch.randn(2, 7 * 9, 8).double().requires_grad_()
    trained = [x, *theirs.parameters()]

    def output_and_gradients():
        out = theirs(x, (7, 9))
        return out, *torch.autograd.grad(out.square().sum(), trained)

    expected = output_and_gradients()
    theirs.w_msa.__class__ = WindowAttention
    torch.testing.assert_close(output_and_gradients(), expected)


@pytest.mark.parametrize("size", [(64, 64), (37, 90)])
def test_windows_padding_and_merging_are_those_of_mmdet(size):
    theirs, ours = MMDetSwin(**SMALL), SwinTransformer(**SMALL)
    ours.load_state_dict(theirs.state_dict())
    for model in (theirs, ours):
        model.double().train(False)
    images = torch.randn(2, 3, *size).double()
    torch.testing.assert_close(ours(images), theirs(images))


def test_a_backbone_has_no_other_attention_and_runs_in_half_precision():
    model = SwinTransformer(**SMALL).bfloat16()
    model.eval()
    kinds = {type(part) for part in model.modules() if isinstance(part, WindowMSA)}
    assert kinds == {WindowAttention}
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        assert all(out.dtype == torch.bfloat16 for out in model(images.bfloat16()))
        with torch.autocast("cpu"):
            assert all(torch.isfinite(out).all() for out in model.float()(images))
