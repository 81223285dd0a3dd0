"""Masks of boxes by SAM or SAM 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from llmdet.apis.building import choose_device
from llmdet.datasets.views import make_view
from llmdet.models.outputs.mask_decoder import original_logits
from llmdet.models.vision.sam import build_sam, sam_view
from llmdet.models.vision.views import collate_views


class BoxMasks:
    """The mask of what each box of an image is around.

    Args:
        model: as of :class:`~llmdet.models.vision.sam.SamTower`: a folder or hub id of
            transformers, or a ``.pth`` file of segment_anything.
        device: "auto" is CUDA where there is one.

    Raises:
        ConfigError: the model is no SAM.
        CheckpointError: its weights are not all there.
    """

    def __init__(self, model: str | Mapping[str, Any], device: str = "auto") -> None:
        chosen = choose_device(device)
        self.sam = build_sam(model).to(chosen).eval()
        self.view = sam_view(self.sam.config)
        self.device = chosen

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Masks [N, H, W] bool.

        Args:
            pixels: [H, W, 3] uint8 RGB.
            boxes: [N, 4] xyxy in pixels.
        """
        if not len(boxes):
            return np.zeros((0, *pixels.shape[:2]), bool)
        seen = collate_views([make_view(pixels[..., ::-1], self.view)], self.device)
        given = torch.from_numpy(np.asarray(boxes, np.float32)).to(self.device)
        image = torch.zeros(len(given), dtype=torch.int64, device=self.device)
        found = self.sam(
            pixel_values=seen.pixels,
            input_boxes=seen.frame.boxes(given, image)[None],
            multimask_output=False,
        )
        logits = original_logits(found.pred_masks[0, :, 0].float(), seen.frame, 0)
        return (logits > 0).cpu().numpy()
