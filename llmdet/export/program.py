"""The detector between tensors: an image goes in, boxes, scores and labels come out.

Every image fills its tensor: programs know no padding. Boxes are xyxy in 0..1 of the image, so that
they are multiplied by the size of any version of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from llmdet.export.text import TEXT_INPUTS, EncodedPrompt, TextTensors
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.structures import FeaturePyramid, TextFeatures
from llmdet.models.transformer.boxes import cxcywh_to_xyxy

#: Parts that no program holds: texts are encoded before, the others belong to training.
_LEFT_OUT = ("language_model", "dn_query_generator", "data_preprocessor")


#: What a program computes for B images with P texts each. Files of ONNX give the first three; the
#: others show how an answer came about.
OUTPUTS = (
    "boxes",  # [B, N, 4] float32 xyxy in 0..1 of the image, best first
    "scores",  # [B, N] float32 in 0..1; below 0 where there are fewer than N
    "labels",  # [B, N] int64, places in the list of classes
    "pixels",  # [B * P, Q] int64, which pixels of the pyramid became queries
    "likelihood",  # [B * P, Q] float32, logit of the best token there
    "logits",  # [B * P, Q, L] float32, -inf at padded text
    "query_boxes",  # [B * P, Q, 4] float32 cxcywh in 0..1 of the image
)


class DetectorProgram(nn.Module):
    """A detector whose inputs and outputs are tensors of one device.

    Args:
        model: the detector, in eval mode; its weights are shared, not copied.
        uint8: images are [B, H, W, 3] uint8 RGB and normalised within; else [B, 3, H, W] float32
            RGB, normalised before.
    """

    mean: Tensor
    std: Tensor
    num_detections: int  # N
    offsets: tuple[int, ...]  # P, the label of each text's first class
    best_token = False  # a query's score is that of its best token; else the mean of each class's

    def __init__(self, model: GroundingDINO, *, uint8: bool = False) -> None:
        super().__init__()
        self.uint8 = uint8
        self.max_detections = model.test_cfg.max_per_img
        mean, std = normalisation(model)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.detector = _without(model, _LEFT_OUT)
        self.detector.use_autocast = False  # weights say the precision

    def run(
        self, image: Tensor, text: TextTensors, pixels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Detect in B images with P texts each.

        Args:
            image: as the constructor says.
            text: of B * P texts, those of an image side by side.
            pixels: [B * P, Q] int64, the queries' pixels as another program chose them.

        Returns:
            :data:`OUTPUTS` by name.
        """
        detector: GroundingDINO = self.detector
        pyramid = self._repeated(self._pyramid(self._normalised(image)), len(self.offsets))
        features = TextFeatures(
            text.text_features.to(pyramid.feat.dtype),
            text.token_mask,
            text.position_ids,
            text.attention_mask,
        )
        encoded = detector.encode(pyramid, features)
        proposals = detector.propose(encoded, pixels)
        predictions = detector.bbox_head(detector.decode(encoded, proposals), encoded.text)
        logits, boxes = predictions.logits[-1].float(), predictions.boxes[-1]
        best = self.answer(logits, boxes, text.token_map)
        likelihood = proposals.logits.amax(-1).float()
        found = (*best, proposals.indices, likelihood, logits, boxes)
        return dict(zip(OUTPUTS, found, strict=True))

    def answer(
        self, logits: Tensor, boxes: Tensor, token_map: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The answer that queries of B * P texts give; see :func:`best_detections`."""
        scores = logits.sigmoid()
        if self.best_token:
            scores = scores.amax(-1, keepdim=True)
        else:
            scores = class_scores(scores, token_map)
        return best_detections(scores, boxes, self.offsets, self.num_detections)

    def _normalised(self, image: Tensor) -> Tensor:
        if self.uint8:
            image = ((image.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return image.to(self.detector.level_embed.dtype)

    def _pyramid(self, pixels: Tensor) -> FeaturePyramid:
        feats = self.detector.extract_feat(pixels)
        # What says where pixels lie is made for one image: none has padding.
        alone = self.detector.pyramid(
            [feat[:1] for feat in feats], [[(feat.shape[-2], feat.shape[-1])] for feat in feats]
        )
        batch = pixels.shape[0]
        return replace(
            alone,
            feat=torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], 1),
            pos=alone.pos.expand(batch, -1, -1),
            valid_ratios=alone.valid_ratios.expand(batch, -1, -1),
        )

    @staticmethod
    def _repeated(pyramid: FeaturePyramid, times: int) -> FeaturePyramid:
        """Each image as often as it has texts."""
        if times == 1:
            return pyramid
        return replace(
            pyramid,
            feat=pyramid.feat.repeat_interleave(times, 0),
            pos=pyramid.pos.repeat_interleave(times, 0),
            valid_ratios=pyramid.valid_ratios.repeat_interleave(times, 0),
        )


class FixedPromptProgram(DetectorProgram):
    """A detector of classes that were chosen when it was exported.

    Args:
        model, uint8: see :class:`DetectorProgram`.
        prompt: what is looked for; its texts run side by side as a batch.
    """

    def __init__(self, model: GroundingDINO, prompt: EncodedPrompt, *, uint8: bool = False) -> None:
        super().__init__(model, uint8=uint8)
        self.offsets, self.best_token = prompt.offsets, prompt.best_token
        for name in TEXT_INPUTS:
            tensor = getattr(prompt.tensors, name).to(self.mean.device)
            self.register_buffer(name, tensor, persistent=False)
        classes = int(prompt.tensors.token_map.any(-1).sum())
        self.num_detections = min(self.max_detections, model.num_queries * classes)

    def forward(self, image: Tensor, pixels: Tensor | None = None) -> dict[str, Tensor]:
        """Detect in B images; see :meth:`DetectorProgram.run`."""
        batch = image.shape[0]
        texts = {}
        for name in TEXT_INPUTS:
            tensor = getattr(self, name)
            texts[name] = tensor.expand(batch, *tensor.shape).flatten(0, 1)
        return self.run(image, TextTensors(**texts), pixels)


class TextInputProgram(DetectorProgram):
    """A detector that is told by tensors what to look for: one text for each image."""

    def __init__(self, model: GroundingDINO, *, uint8: bool = False) -> None:
        super().__init__(model, uint8=uint8)
        self.offsets = (0,)
        self.num_detections = min(self.max_detections, model.num_queries)

    def forward(
        self,
        image: Tensor,
        text_features: Tensor,
        token_mask: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        token_map: Tensor,
        pixels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Detect in B images with B texts; see :class:`~llmdet.export.text.TextTensors`."""
        text = TextTensors(text_features, token_mask, position_ids, attention_mask, token_map)
        return self.run(image, text, pixels)


def class_scores(probabilities: Tensor, token_map: Tensor) -> Tensor:
    """Mean probability of each class's tokens: [B * P, Q, K], below 0 where a row is no class.

    Args:
        probabilities: [B * P, Q, L] of each token.
        token_map: [B * P, K, L] bool.
    """
    weights = token_map.to(probabilities.dtype)
    counts = weights.sum(-1, keepdim=True)
    scores = probabilities @ (weights / counts.clamp(min=1)).transpose(1, 2)
    return scores.masked_fill(counts.transpose(1, 2) == 0, -1.0)


def best_detections(
    scores: Tensor, boxes: Tensor, offsets: Sequence[int], most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest pairs of a query and a class, over all texts of an image.

    Args:
        scores: [B * P, Q, K].
        boxes: [B * P, Q, 4] cxcywh in 0..1.
        offsets: P, the label of each text's first class.
        most: N.

    Returns:
        Boxes [B, N, 4] xyxy in 0..1, scores [B, N] and labels [B, N], best first.
    """
    texts, queries, classes = len(offsets), scores.shape[1], scores.shape[2]
    scores = scores.reshape(-1, texts * queries * classes)
    best, place = scores.topk(most, dim=1)
    query = place // classes  # queries of all texts in a row
    label = place - query * classes
    if texts > 1:
        first = torch.tensor(offsets, device=place.device)
        label = label + first[query // queries]
    corners = cxcywh_to_xyxy(boxes).clamp(0, 1).reshape(-1, texts * queries, 4)
    return corners.gather(1, query[..., None].expand(-1, -1, 4)), best, label


def normalisation(model: GroundingDINO) -> tuple[list[float], list[float]]:
    """Mean and standard deviation [3] of RGB in 0..255 that images are normalised with."""
    preprocessor = model.data_preprocessor
    mean = getattr(preprocessor, "mean", None)
    if mean is None:
        return [0.0] * 3, [1.0] * 3
    return mean.flatten().tolist(), preprocessor.std.flatten().tolist()


def _without(model: GroundingDINO, parts: Sequence[str]) -> GroundingDINO:
    """The same model, whose modules are shared, without some of them."""
    smaller = copy.copy(model)
    smaller._modules = {name: part for name, part in model._modules.items() if name not in parts}
    return smaller
