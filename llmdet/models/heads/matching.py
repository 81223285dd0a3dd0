"""Hungarian matching of queries with ground truth, all layers and images in one transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import generalized_box_iou

from llmdet.errors import ConfigError
from llmdet.models.structures import Matches
from llmdet.models.transformer.boxes import axes_scales, cxcywh_to_xyxy
from llmdet.ops.precision import float32_island
from llmdet.utils.construct import construct
from llmdet.utils.suggest import did_you_mean


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image, as the losses want it."""

    boxes: Tensor  # [N, 4] float32 cxcywh in 0..1 of the valid image
    corners: Tensor  # [N, 4] float32, the same boxes as xyxy
    positive_map: Tensor  # [N, L] float32, 1 where a token names the box
    size: tuple[int, int]  # (height, width) of the valid image in pixels


@dataclass(frozen=True)
class TrainSettings:
    """What ``model.train_cfg`` may say."""

    assigner: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AssignerSettings:
    """What ``model.train_cfg.assigner`` may say."""

    match_costs: Sequence[Mapping[str, Any]] | Mapping[str, Any]
    type: str = "HungarianAssigner"


@dataclass(frozen=True)
class HungarianMatcher:
    """Weights and settings of the matching costs (DETR 2005.12872, section 3.1).

    Attributes:
        classification: weight of the focal cost over text tokens.
        l1: weight of the L1 distance of normalised cxcywh boxes.
        giou: weight of the negative generalised IoU.
        alpha, gamma: of the focal cost.
    """

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        weights = (self.classification, self.l1, self.giou)
        if min(weights) < 0 or max(weights) == 0:
            raise ConfigError(
                f"train_cfg.assigner.match_costs weigh {weights} (classification, L1, GIoU): "
                "matching needs weights of at least zero, one of them above"
            )

    @classmethod
    def from_config(cls, train_cfg: Mapping[str, Any] | None) -> HungarianMatcher:
        """Read mmdet's ``train_cfg``, whose one setting is ``assigner``.

        Raises:
            ConfigError: an assigner, a cost or a key that grounding does not define, or costs
                that are all zero.
        """
        assigner = construct(TrainSettings, train_cfg or {}, "model.train_cfg").assigner
        if assigner is None:
            return cls()
        where = "model.train_cfg.assigner"
        settings = construct(AssignerSettings, assigner, where)
        if settings.type != "HungarianAssigner":
            raise ConfigError(f"{where}.type={settings.type!r}; only HungarianAssigner is defined")
        weights: dict[str, float] = {"classification": 0.0, "l1": 0.0, "giou": 0.0}
        costs = settings.match_costs
        for cost in [costs] if isinstance(costs, Mapping) else costs:
            weights |= _weights_of(dict(cost), f"{where}.match_costs")
        return cls(**weights)

    @torch.no_grad()
    def __call__(
        self, logits: Sequence[Tensor], boxes: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[Matches]:
        """Match every layer's queries with every image's boxes.

        Args:
            logits: per layer [B, Q, L], -inf at padded text.
            boxes: per layer [B, Q, 4] cxcywh in 0..1.
            targets: ground truth of the B images.

        Returns:
            Per layer, indices on the device of ``logits``. Costs travel to the host once, and
            matches back once.
        """
        from scipy.optimize import linear_sum_assignment  # a fifth of a second, while training only

        costs = self.cost(torch.stack(list(logits), 1), torch.stack(list(boxes), 1), targets)
        # A prediction that is not finite must not stop training here: it costs the most.
        tables = torch.nan_to_num(costs.cpu(), nan=100.0, posinf=100.0, neginf=-100.0).numpy()
        counts = [min(len(target.boxes), costs.shape[2]) for target in targets]
        found = np.empty((2, len(logits), sum(counts)), dtype=np.int64)
        stop = 0
        for image, target in enumerate(targets):
            start, stop = stop, stop + counts[image]
            for layer, table in enumerate(tables[image, :, :, : len(target.boxes)]):
                query, box = linear_sum_assignment(table)
                order = box.argsort()
                found[:, layer, start:stop] = query[order], box[order]
        queries, matched = torch.from_numpy(found).to(costs.device, non_blocking=True)
        return [
            Matches(query.split(counts), box.split(counts))
            for query, box in zip(queries, matched, strict=True)
        ]

    @float32_island
    def cost(self, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> Tensor:
        """Cost of matching each query of an image with each of its boxes.

        Args:
            logits: [B, layers, Q, L], -inf at padded text.
            boxes: [B, layers, Q, 4] cxcywh in 0..1.
            targets: ground truth of the B images.

        Returns:
            [B, layers, Q, N]; N is the number of boxes of the fullest image, and columns beyond
            those of an image mean nothing.
        """
        true = pad_sequence([target.boxes for target in targets], batch_first=True).to(boxes.dtype)
        true = true[:, None]  # [B, 1, N, 4]
        l1 = torch.cdist(boxes, true.expand(-1, boxes.shape[1], -1, -1), p=1)
        scale = axes_scales([target.size for target in targets], boxes)[:, None, None]
        giou = generalized_box_iou(cxcywh_to_xyxy(boxes) * scale, cxcywh_to_xyxy(true) * scale)
        maps = pad_sequence([target.positive_map for target in targets], batch_first=True)
        classes = self._focal_cost(logits, maps[:, None].to(logits.dtype))
        return self.classification * classes + self.l1 * l1 - self.giou * giou

    def _focal_cost(self, logits: Tensor, positive_map: Tensor) -> Tensor:
        valid = logits > float("-inf")  # [B, layers, Q, L]; the same for all queries
        finite = logits.masked_fill(~valid, 0.0)
        probability = finite.sigmoid()
        # softplus is -log(1 - p), and stays exact where p rounds to 1.
        negative = F.softplus(finite) * (1 - self.alpha) * probability**self.gamma
        positive = F.softplus(-finite) * self.alpha * (1 - probability) ** self.gamma
        absent = (negative * valid).sum(-1, keepdim=True)  # cost of naming no token at all
        return ((positive - negative) * valid) @ positive_map.transpose(-2, -1) + absent


def _focal_weights(
    weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0
) -> dict[str, float]:
    return {"classification": weight, "alpha": alpha, "gamma": gamma}


def _l1_weights(weight: float = 1.0, box_format: str = "xywh") -> dict[str, float]:
    if box_format != "xywh":
        raise ConfigError(f"BBoxL1Cost.box_format={box_format!r}; grounding matches 'xywh' boxes")
    return {"l1": weight}


def _giou_weights(weight: float = 1.0, iou_mode: str = "giou") -> dict[str, float]:
    if iou_mode != "giou":
        raise ConfigError(f"IoUCost.iou_mode={iou_mode!r}; grounding matches by 'giou'")
    return {"giou": weight}


#: mmdet's match costs that grounding defines; the functions' signatures are their settings.
_COSTS: dict[str, Callable[..., dict[str, float]]] = {
    "BinaryFocalLossCost": _focal_weights,
    "BBoxL1Cost": _l1_weights,
    "IoUCost": _giou_weights,
}


def _weights_of(cost: dict[str, Any], where: str) -> dict[str, float]:
    """The matcher's settings that one of mmdet's match costs stands for."""
    kind = cost.pop("type", None)
    if kind not in _COSTS:
        raise ConfigError(f"{where} has type={kind!r}; {did_you_mean(str(kind), _COSTS)}")
    return construct(_COSTS[kind], cost, f"{where}: {kind}")
