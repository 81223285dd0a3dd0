"""Masks from prompts: SAM's mask decoder, and SAM 2's, fed by a tower that sees what they saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.models.vision.sam import build_sam
from llmdet.models.vision.views import Frame, TowerOutput
from llmdet.registry import MODELS

#: Most numbers that the image side of one call holds; 128 masks of a whole SAM.
_NUMBERS_AT_ONCE = 2**27


@MODELS.register_module()
class MaskDecoder(nn.Module):
    """One mask for each prompt, of any number of images in one call.

    The decoder trains; what it has of SAM's prompt encoder (the code of places, what stands for
    "no mask yet") does not.

    Args:
        model: as of :class:`~llmdet.models.vision.sam.SamTower`, of which it keeps everything but
            the image encoder.
        pretrained: with False, weights are random.
    """

    def __init__(self, model: str | Mapping[str, Any], pretrained: bool = True) -> None:
        super().__init__()
        sam = build_sam(model, pretrained=pretrained)
        self.decoder: Any = sam.mask_decoder
        self.positions: Any = sam.shared_image_embedding
        self.no_mask: Any = sam.prompt_encoder.no_mask_embed
        self.no_memory: Tensor | None = getattr(sam, "no_memory_embedding", None)  # SAM 2's
        for part in (self.positions, self.no_mask):
            part.requires_grad_(False)
        self.decoder.iou_prediction_head.requires_grad_(False)  # nothing learns from it
        self._is_second = self.no_memory is not None
        if self._is_second:
            self.decoder.pred_obj_score_head.requires_grad_(False)
            # Whether one mask of three is better depends on scores that are not taught here.
            self.decoder.dynamic_multimask_via_stability = False
        #: Width of a prompt.
        self.dims = int(sam.config.mask_decoder_config.hidden_size)

    def forward(self, seen: TowerOutput, prompts: Tensor, image: Tensor) -> Tensor:
        """Logits of masks, four times as fine as the coarsest map.

        Args:
            seen: of a :class:`SamTower` of the same kind, of B images.
            prompts: [N, C], one a mask.
            image: [N] int64, of which image.

        Returns:
            [N, height, width] float32, over the whole view with its padding.
        """
        height, width = seen.maps[-1].shape[2:]
        if not len(prompts):
            return prompts.new_zeros(0, 4 * height, 4 * width)
        maps = [each.float() for each in seen.maps]
        if self.no_memory is not None:
            maps = [
                self.decoder.conv_s0(maps[0]),
                self.decoder.conv_s1(maps[1]),
                maps[2] + self.no_memory.view(1, -1, 1, 1),
            ]
        places = self._places((height, width))
        step = max(1, _NUMBERS_AT_ONCE // maps[-1][0].numel())
        parts = [
            self._decode([each[of] for each in maps], places, some)
            for some, of in zip(prompts.split(step), image.split(step), strict=True)
        ]
        return torch.cat(parts)

    def _decode(self, maps: list[Tensor], places: Tensor, prompts: Tensor) -> Tensor:
        """Logits [n, h, w]; maps and prompts are of n masks."""
        more = {"high_resolution_features": maps[:-1]} if self._is_second else {}
        logits, *_ = self.decoder(
            image_embeddings=maps[-1],
            image_positional_embeddings=places.expand(len(prompts), -1, -1, -1),
            sparse_prompt_embeddings=prompts[:, None, None],
            dense_prompt_embeddings=self.no_mask.weight.view(1, -1, 1, 1),
            multimask_output=False,
            **more,
        )
        return logits[:, 0, 0]

    def _places(self, size: tuple[int, int]) -> Tensor:
        """The code of each cell's place, [1, C, h, w]."""
        device = self.no_mask.weight.device
        y, x = ((torch.arange(n, device=device) + 0.5) / n for n in size)
        cells = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
        return self.positions(cells).permute(2, 0, 1)[None]


def original_logits(logits: Tensor, frame: Frame, image: int) -> Tensor:
    """Logits of masks in an image as it was, without the padding of its view.

    Args:
        logits: [N, h, w] over the whole view.
        frame: of the view, whose images begin in its upper left corner.
        image: of which of its images.

    Returns:
        [N, height, width] of the original image.
    """
    original = frame.original_sizes[image]
    if not len(logits):
        return logits.new_zeros(0, *original)
    height, width = frame.valid_sizes[image]
    view = F.interpolate(logits[:, None], frame.size, mode="bilinear", align_corners=False)
    seen = view[..., :height, :width]
    return F.interpolate(seen, original, mode="bilinear", align_corners=False)[:, 0]
