"""From features of regions to tokens of the language model."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from llmdet.checkpoint.files import read_checkpoint, read_part
from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.transformer.positions import encode_coordinates
from llmdet.registry import MODELS

_FEATURES_PER_NUMBER = 128


@MODELS.register_module()
class VisualConnector(nn.Module):
    """Two-layer projector plus a linear map of the sine encoding of the token's box (3.2).

    Args:
        in_dims: width C of the features.
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


@MODELS.register_module()
class MLPConnector(nn.Module):
    """Linear maps with GELU between them, which know nothing of where a token stands.

    Args:
        in_dims: width C of the features.
        hidden_size: width H of the language model.
        depth: how many maps, 2 as in LLaVA-1.5 and RegionGPT.
        source: folder or hub id of a LLaVA-1.5 in transformers' format, whose projector it starts
            from; None for random weights.
        frozen: with True it does not train.

    Raises:
        CheckpointError: the source has no projector, or one of other widths.
    """

    def __init__(
        self,
        in_dims: int,
        hidden_size: int,
        depth: int = 2,
        source: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ConfigError(f"MLPConnector: depth={depth}; it has at least one map")
        maps: list[nn.Module] = [nn.Linear(in_dims, hidden_size)]
        for _ in range(depth - 1):
            maps += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
        self.projector = nn.Sequential(*maps)
        if source is not None:
            self._start_from(source)
        self.requires_grad_(not frozen)

    def _start_from(self, source: str) -> None:
        read = read_part(source, ("multi_modal_projector.", "model.multi_modal_projector."))
        weights = {
            name.replace("linear_1.", "0.").replace("linear_2.", "2."): value.float()
            for name, value in read.items()
        }
        here = {name: tuple(value.shape) for name, value in self.projector.state_dict().items()}
        there = {name: tuple(value.shape) for name, value in weights.items()}
        if here != there:
            raise CheckpointError(
                f"the projector of '{source}' does not fit: it has {there}, the connector {here}"
            )
        self.projector.load_state_dict(weights)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Features [..., C] as tokens [..., H]; ``boxes`` are not looked at."""
        return self.projector(features.to(next(self.projector.parameters()).dtype))


#: Names in the original's files -> names here.
_ORIGINAL_NAMES = {"vision_projector.0.": "projector.", "pos_proj.": "box_projection."}


def read_connector(path: str | Path) -> dict[str, Tensor]:
    """Weights of a trained connector, under the names of :class:`VisualConnector`.

    Args:
        path: a projector file of the original (keys with ``mm_projector.``), or a checkpoint of
            the alignment stage, ours or the original's.

    Raises:
        CheckpointError: the file cannot be read safely or holds no connector.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"model.connector='{path}' does not exist: run the alignment stage first "
            "(configs/grounding_dino_t_for_alignment.py), give another file, or set "
            "model.connector=None to start from random weights"
        )
    try:
        state_dict = read_checkpoint(path).state_dict
    except CheckpointError as error:
        raise CheckpointError(f"model.connector='{path}' cannot be read: {error}") from error
    for prefix in ("image_captioner.connector.", "mm_projector.", "connector."):
        found = {
            _here(key.rpartition(prefix)[2]): value
            for key, value in state_dict.items()
            if prefix in key and not key.startswith("region_")
        }
        if found:
            return found
    raise CheckpointError(
        f"model.connector='{path}' holds no connector; its first keys: {list(state_dict)[:3]}"
    )


def _here(name: str) -> str:
    for theirs, ours in _ORIGINAL_NAMES.items():
        name = name.replace(theirs, ours, 1) if name.startswith(theirs) else name
    return name
