"""What travels between the stages of a detector: frozen dataclasses, shapes in the comments.

The letters are explained once, in :mod:`llmdet.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from llmdet.utils.tensors import take_rows


@dataclass(frozen=True)
class TextFeatures:
    """Encoded prompts of one batch, padded to the longest prompt."""

    embedded: Tensor  # [B, L, C] float; C is BERT's width until the detector has mapped it
    token_mask: Tensor  # [B, L] bool, True at tokens, False at padding
    position_ids: Tensor  # [B, L] int64, restarting after each special token
    attention_mask: Tensor  # [B, L, L] bool, True where row may attend to column (sub-sentence)


@dataclass(frozen=True)
class FeaturePyramid:
    """Image features of all levels, flattened fine to coarse into one sequence of S pixels."""

    feat: Tensor  # [B, S, C]
    pos: Tensor  # [B, S, C] sine position encoding + level embedding
    padding_mask: Tensor | None  # [B, S] bool, True at padding; None when nothing is padded
    shapes: tuple[tuple[int, int], ...]  # (height, width) of each level, on the host
    spatial_shapes: Tensor  # [levels, 2] int64, the same numbers on the device
    level_start_index: Tensor  # [levels] int64, where each level begins in S
    valid_ratios: Tensor  # [B, levels, 2] float32, valid (width, height) / padded (width, height)

    def of(self, images: Sequence[int]) -> FeaturePyramid:
        """The pyramids of some images of the batch; one image several times takes no memory."""
        tensors = [self.feat, self.pos, self.valid_ratios]
        tensors += [] if self.padding_mask is None else [self.padding_mask]
        feat, pos, ratios, *mask = take_rows(tensors, images)
        padding = mask[0] if mask else None
        return replace(self, feat=feat, pos=pos, valid_ratios=ratios, padding_mask=padding)


@dataclass(frozen=True)
class EncoderOutput:
    """Image and text features after they have attended to each other."""

    memory: Tensor  # [B, S, C]
    text: TextFeatures  # embedded: [B, L, C]
    pyramid: FeaturePyramid


@dataclass(frozen=True)
class QueryProposals:
    """The Q encoder pixels that the two-stage head finds most likely to be objects."""

    logits: Tensor  # [B, Q, L] -inf at padded text
    boxes: Tensor  # [B, Q, 4] cxcywh in 0..1 of the valid image, with gradient
    indices: Tensor  # [B, Q] int64, which of the S pixels


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised ground truth that joins the queries while training (contrastive denoising)."""

    content: Tensor  # [B, M, C] label embeddings of the M denoising queries
    boxes_unact: Tensor  # [B, M, 4] inverse sigmoid of noised cxcywh boxes
    attention_mask: Tensor  # [M + Q, M + Q] bool, True = blocked
    num_groups: int
    queries_per_group: int  # 2 x the largest number of noised boxes of an image of the batch
    box_indices: tuple[Tensor, ...]  # [n_i] int64, which boxes of each image are noised


@dataclass(frozen=True)
class DecoderOutput:
    """All decoder layers; the first M of the queries are denoising queries while training."""

    hidden_states: Tensor  # [D, B, M + Q, C] after the decoder's norm
    references: Tensor  # [D + 1, B, M + Q, 4] float32 cxcywh in 0..1, entering each layer


@dataclass(frozen=True)
class HeadOutput:
    """Contrastive logits and boxes of every decoder layer."""

    logits: Tensor  # [D, B, M + Q, L] -inf at padded text
    boxes: Tensor  # [D, B, M + Q, 4] float32 cxcywh in 0..1


@dataclass(frozen=True)
class PromptedFeatures:
    """What a detector made of B pairs of image and prompt, for detections and captions."""

    encoded: EncoderOutput
    proposals: QueryProposals
    decoded: DecoderOutput  # without denoising queries
    predictions: HeadOutput


@dataclass(frozen=True)
class Matches:
    """Which query was matched to which ground-truth box, in one layer, one entry per image."""

    query_indices: tuple[Tensor, ...]  # [N_i] int64, ordered like the boxes
    box_indices: tuple[Tensor, ...]  # [N_i] int64 into gt_instances


@dataclass(frozen=True)
class TrainingOutput:
    """Everything the detector computed for its losses, for those who want to add their own."""

    encoded: EncoderOutput
    proposals: QueryProposals
    denoising: DenoisingQueries | None
    decoded: DecoderOutput
    predictions: HeadOutput
    matches: tuple[Matches, ...]  # one per decoder layer, denoising queries not counted
    losses: dict[str, Tensor]
