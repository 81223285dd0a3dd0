"""From detector features to tokens of the language model."""

from __future__ import annotations

from torch import Tensor, nn

from llmdet.models.transformer.positions import encode_coordinates

_FEATURES_PER_NUMBER = 128


class VisualConnector(nn.Module):
    """Two-layer projector plus a linear map of the sine encoding of the token's box (3.2).

    Args:
        in_dims: width C of detector features.
        hidden_size: width H of the language model.
    """

    def __init__(self, in_dims: int, hidden_size: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(in_dims, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.box_projection = nn.Linear(4 * _FEATURES_PER_NUMBER, hidden_size)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Turn features into tokens that know where they stand.

        Args:
            features: [..., C].
            boxes: [..., 4] xyxy in 0..1 of the valid image.

        Returns:
            [..., H].
        """
        # The encoding names its numbers cx, cy, w, h; the released projectors were trained on
        # corners in their place.
        encoded = encode_coordinates(boxes, _FEATURES_PER_NUMBER)
        return self.projector(features) + self.box_projection(encoded.to(features.dtype))
