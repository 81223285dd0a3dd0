"""The language model names single regions from object queries (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from llmdet.errors import DataError
from llmdet.models.structures import Matches
from llmdet.models.transformer.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

from .connector import VisualConnector
from .conversation import ConversationBuilder
from .language_model import LanguageModel, VisualTokens
from .losses import anchor
from .view import DetectorView, scaled_references

#: The prompt of the released models.
PROMPT = "Describe the region in a phrase."
Captions = Mapping[str, Any]  # box_index: list[int], answers: list[str]


@dataclass(frozen=True)
class Regions:
    """R regions of a batch, image after image."""

    image: Tensor  # [R] int64
    query: Tensor  # [R] int64, the object query that stands for the region
    counts: tuple[int, ...]  # regions of each image
    boxes: Tensor | None = None  # [R, 4] cxcywh in 0..1; None: the query's own box


class RegionCaptioner(nn.Module):
    """One token per region, the phrase loss on it, and phrases out.

    Args:
        lmm: the language model; not a part of this module, only its sizes and tokenizer are used.
        in_dims: width C of object queries.
        decoder_layers: the loss is taken on so many last layers of the decoder.
        max_length: most tokens of a conversation.
        loss_weight: factor of the losses.
        system: system turn of the conversation, None for none.
    """

    def __init__(
        self,
        lmm: LanguageModel,
        in_dims: int = 256,
        decoder_layers: int = 1,
        max_length: int = 40,
        loss_weight: float = 1.0,
        system: str | None = "You are a helpful assistant.",
    ) -> None:
        super().__init__()
        self.decoder_layers, self.loss_weight = decoder_layers, loss_weight
        self.connector = VisualConnector(in_dims, lmm.hidden_size)
        self.conversations = ConversationBuilder(lmm.tokenizer, max_length, system=system)

    def loss(
        self,
        lmm: LanguageModel,
        view: DetectorView,
        matches: Sequence[Matches],
        captions: Sequence[Captions | None],
    ) -> dict[str, Tensor]:
        """Cross-entropy of the phrases' tokens, weighted, by decoder layer.

        Args:
            matches: of each decoder layer.
            captions: per image the indices of boxes and their phrases, or None.

        Returns:
            ``d<layer>.loss_lmm_region``, always present; zero with gradient zero for every
            trainable parameter where no region has a phrase.
        """
        depth = len(view.hidden_states)
        losses = {}
        for layer in range(depth - self.decoder_layers, depth):
            regions, answers = _matched_regions(view, matches[layer], captions)
            if answers:
                loss = self._layer_loss(lmm, view, layer, regions, answers)
            else:
                loss = anchor([*self.parameters(), *lmm.parameters()])
            losses[f"d{layer}.loss_lmm_region"] = loss
        return losses

    def describe(
        self,
        lmm: LanguageModel,
        view: DetectorView,
        boxes: Sequence[Tensor],
        *,
        batch_size: int = 256,
        **options: Any,
    ) -> list[list[str]]:
        """Phrases for given boxes; each is represented by the query whose box fits it best.

        Args:
            boxes: per image [N_i, 4] xyxy in 0..1 of the valid image.
            batch_size: most regions that the language model answers for at once.
            options: of transformers' ``generate``.

        Returns:
            N_i phrases per image.
        """
        texts: list[str] = []
        for some in _batches([len(own) for own in boxes], batch_size):
            regions = _nearest_queries(view, boxes, some)
            visual = self.tokens(view, len(view.hidden_states) - 1, regions)
            dialogue = self.conversations.prompt_batch([PROMPT] * len(some), 1)
            dialogue = dialogue.to(visual.embeds.device)
            texts += lmm.generate(dialogue, visual, view.encoded, **options)
        answers = iter(texts)
        return [[next(answers) for _ in own] for own in boxes]

    def tokens(self, view: DetectorView, layer: int, regions: Regions) -> VisualTokens:
        """One token [R, 1, H] per region, and where it looks."""
        features = view.hidden_states[layer][regions.image, regions.query]  # [R, C]
        boxes = regions.boxes
        if boxes is None:
            boxes = view.boxes[layer][regions.image, regions.query]
        embeds = self.connector(features, cxcywh_to_xyxy(boxes))
        ratios = view.encoded.pyramid.valid_ratios[regions.image]
        references = scaled_references(boxes[:, None], ratios)
        return VisualTokens(embeds[:, None], regions.counts, references)

    def _layer_loss(
        self,
        lmm: LanguageModel,
        view: DetectorView,
        layer: int,
        regions: Regions,
        answers: Sequence[str],
    ) -> Tensor:
        visual = self.tokens(view, layer, regions)
        dialogue = self.conversations.training_batch([PROMPT] * len(answers), answers, 1)
        dialogue = dialogue.to(visual.embeds.device)
        return self.loss_weight * lmm.loss(dialogue, visual, view.encoded)


def _matched_regions(
    view: DetectorView, matches: Matches, captions: Sequence[Captions | None]
) -> tuple[Regions, list[str]]:
    """Queries matched to the captioned boxes, and the captions in the same order."""
    device, queries = view.hidden_states.device, view.hidden_states.shape[2]
    image, query, counts, answers = [], [], [], []
    for number, caption in enumerate(captions):
        asked = [] if caption is None else list(caption["box_index"])
        texts = [] if caption is None else list(caption["answers"])
        if len(asked) != len(texts):
            raise DataError(
                f"region_captions of image {number} of the batch name {len(asked)} boxes and "
                f"{len(texts)} answers"
            )
        own = matches.query_indices[number]
        if len(own) == queries:  # perhaps fewer queries than boxes: some stay without one
            of_box = matches.box_indices[number].tolist()
            pairs = [(of_box.index(a), t) for a, t in zip(asked, texts, strict=True) if a in of_box]
            asked, texts = [place for place, _ in pairs], [text for _, text in pairs]
        if asked and max(asked) >= len(own):
            raise DataError(
                f"region_captions of image {number} of the batch name box {max(asked)}, but it "
                f"has {len(own)}; draw regions after boxes are filtered"
            )
        places = torch.tensor(asked, dtype=torch.int64).to(device, non_blocking=True)
        query.append(own[places])
        image += [number] * len(asked)
        counts.append(len(asked))
        answers += texts
    on_device = torch.tensor(image, dtype=torch.int64).to(device, non_blocking=True)
    return Regions(on_device, torch.cat(query), tuple(counts)), answers


def _batches(counts: Sequence[int], size: int) -> list[list[tuple[int, int]]]:
    """(image, number of its box) of all boxes in order, in pieces of at most ``size``."""
    pairs = [(image, box) for image, count in enumerate(counts) for box in range(count)]
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _nearest_queries(
    view: DetectorView, boxes: Sequence[Tensor], some: Sequence[tuple[int, int]]
) -> Regions:
    corners = view.corners
    query, chosen = [], []
    for image in range(len(boxes)):
        numbers = [box for owner, box in some if owner == image]
        asked = boxes[image][numbers].to(corners)
        query.append(box_iou(asked, corners[image]).argmax(1))
        chosen.append(asked)
    counts = tuple(len(own) for own in query)
    rows = torch.tensor([image for image, _ in some], device=corners.device)
    return Regions(rows, torch.cat(query), counts, xyxy_to_cxcywh(torch.cat(chosen)))
