"""Stand-in for the compiled extension ``mmcv._ext``: the operators that detection needs.

nms and roi_align answer from torchvision, ms_deform_attn from
:mod:`llmdet.ops.deformable_attention`. Signatures are those with which ``mmcv.ops`` calls its
extension; gradients and outputs that arrive as arguments are written in place. Every other
operator can be looked up, as ``mmcv.ops`` does while it is imported, and raises
:class:`llmdet.errors.ConfigError` when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor

from llmdet.errors import ConfigError


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: [N, 4] xyxy.
        scores: [N].
        iou_threshold: boxes that overlap a better one by more than this are dropped.
        offset: 0 or 1; a box is ``x2 - x1 + offset`` wide.

    Returns:
        [kept] int64, indices of the kept boxes, best first.
    """
    if offset:
        # Widths and intersections grow by `offset` exactly when the far corner moves by it.
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average RoIAlign of ``input`` [B, C, H, W] at ``rois`` [R, 5] into ``output`` [R, C, h, w].

    Raises:
        ConfigError: max pooling (``pool_mode=0``), which torchvision does not offer.
    """
    if pool_mode == 0:
        missing_operator("roi_align_forward (pool_mode='max')")()
    output.copy_(
        torchvision.ops.roi_align(
            input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` with respect to its input, into ``grad_input``."""
    # The output is linear in the input, so that its gradient does not depend on the values.
    with torch.enable_grad():
        pixels = torch.zeros_like(grad_input, requires_grad=True)
        output = torchvision.ops.roi_align(
            pixels, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
        )
    (gradient,) = torch.autograd.grad(output, pixels, grad_output)
    grad_input.copy_(gradient)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR, equation 3).

    Args:
        value: [B, S, heads, C / heads].
        spatial_shapes: [levels, 2] int64, (height, width).
        level_start_index: [levels]; follows from ``spatial_shapes``.
        sampling_locations: [B, Q, heads, levels, P, 2], (x, y) in 0..1.
        attention_weights: [B, Q, heads, levels, P].
        im2col_step: batch split of the compiled kernel; without effect here.

    Returns:
        [B, Q, C].
    """
    from llmdet.ops.deformable_attention import deformable_attention

    shapes = tuple((int(height), int(width)) for height, width in spatial_shapes.tolist())
    return deformable_attention(value, shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_locations: Tensor,
    grad_attention_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`, written into the three ``grad_`` arguments."""
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0],
            spatial_shapes,
            level_start_index,
            inputs[1],
            inputs[2],
            im2col_step=im2col_step,
        )
    gradients = torch.autograd.grad(output, inputs, grad_output)
    grad_value.copy_(gradients[0])
    grad_sampling_locations.copy_(gradients[1])
    grad_attention_weights.copy_(gradients[2])


def get_compiler_version() -> str:
    """What environment reports print as the compiler of mmcv's operators."""
    return "none (stand-in of llmdet)"


def get_compiling_cuda_version() -> str:
    """What environment reports print as the CUDA version of mmcv's operators."""
    return "none (stand-in of llmdet)"


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms,
        roi_align_forward,
        roi_align_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


def missing_operator(name: str) -> Callable[..., NoReturn]:
    """A function in the place of operator ``name`` that says how to obtain it when called.

    Raises:
        AttributeError: ``name`` is a dunder, which Python asks of every module.
    """
    if name.startswith("__"):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def operator(*args: object, **kwargs: object) -> NoReturn:
        raise ConfigError(
            f"The operator '{name}' of mmcv.ops is compiled code, which this installation of mmcv "
            "does not have: choose a model part that does without, or compile mmcv for this torch: "
            "pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir "
            "onedl-mmcv (needs a C++ compiler, and nvcc for CUDA)."
        )

    operator.__name__ = name
    return operator
