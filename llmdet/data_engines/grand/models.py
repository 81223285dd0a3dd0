"""What measures boxes of a picture: masks of SAM, and how far away things are; models of a flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from llmdet.chat import Pace
from llmdet.chat.local import identity_of
from llmdet.datasets.masks import encode_mask
from llmdet.errors import ConfigError

_DECIMALS = 3


@dataclass(frozen=True)
class BoxesIn:
    """Boxes of a picture."""

    image: Image.Image
    boxes: tuple[list[float], ...]  # N of x1, y1, x2, y2 in its pixels


class SamMasks:
    """The mask in each box.

    Args:
        masks: takes pixels [H, W, 3] uint8 and boxes [N, 4], gives masks [N, H, W] bool: a
            ``llmdet.apis.box_masks.BoxMasks``.
        identity: of its model, as JSON.
    """

    pace = Pace(1)

    def __init__(
        self, masks: Callable[[np.ndarray, np.ndarray], np.ndarray], identity: Mapping[str, Any]
    ) -> None:
        self.masks, self.identity = masks, dict(identity)

    def answer(self, requests: Sequence[BoxesIn]) -> list[list[dict[str, Any]]]:
        """N encoded masks of each picture."""
        return [
            [encode_mask(mask) for mask in self.masks(np.asarray(one.image), np.array(one.boxes))]
            for one in requests
        ]


class DepthOrder:
    """How far away the things in boxes are, from 0 for the nearest to 1 for the farthest point.

    Args:
        model: folder or hub id of a depth estimation model of transformers.
        device: for example ``"cuda"`` or ``"cpu"``.
        metric: what it estimates grows with the distance (ZoeDepth, GLPN); by default it falls
            (MiDaS, DPT, Depth Anything).

    Raises:
        ConfigError: the model cannot be loaded, or estimates no depth.
    """

    pace = Pace(1)

    def __init__(self, model: str, device: str, *, metric: bool = False) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            self.pictures: Any = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
            loaded: Any = AutoModelForDepthEstimation.from_pretrained(
                model, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{model}: no model of depth could be loaded: {reason}") from None
        self.model: Any = loaded.to(device).eval()
        self.metric = metric
        self.identity = {**identity_of(model), "metric": metric}

    def answer(self, requests: Sequence[BoxesIn]) -> list[list[float]]:
        """N depths of each picture: medians over the boxes."""
        return [depths_in(self._depth(one.image), one.boxes, self.metric) for one in requests]

    def _depth(self, image: Image.Image) -> np.ndarray:
        """What the model estimates, [H, W] float32 in pixels of the picture."""
        import torch

        inputs = self.pictures(images=[image], return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            estimated = self.model(**inputs).predicted_depth
        resized = torch.nn.functional.interpolate(
            estimated[:, None].float(), image.size[::-1], mode="bilinear", align_corners=False
        )
        return resized[0, 0].cpu().numpy()


def depths_in(depth: np.ndarray, boxes: Sequence[Sequence[float]], metric: bool) -> list[float]:
    """The median in each box, from 0 for the nearest to 1 for the farthest point of the picture.

    Args:
        depth: [H, W].
        boxes: N of x1, y1, x2, y2 in its pixels.
        metric: whether it grows with the distance.
    """
    near, far = (depth.min(), depth.max()) if metric else (depth.max(), depth.min())
    extent = far - near
    found = []
    for x1, y1, x2, y2 in boxes:
        part = depth[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]
        value = (np.median(part) - near) / extent if extent and part.size else 0.0
        found.append(round(float(value), _DECIMALS))
    return found
