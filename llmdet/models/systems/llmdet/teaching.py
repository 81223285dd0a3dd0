"""What captioners see of a detector that trains, and which of its queries stand for which boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llmdet.errors import DataError
from llmdet.models.quirks import Quirks
from llmdet.models.regions.base import RegionBatch, batch_regions
from llmdet.models.structures import Matches, TrainingOutput
from llmdet.models.vision.detector_memory import DetectorOutput, detector_output
from llmdet.models.vision.views import Frame
from llmdet.prompts.conversation import TokenizedConversation

Tokens = Sequence[TokenizedConversation]


def training_view(
    output: TrainingOutput, layer: int, frame: Frame, quirks: Quirks
) -> DetectorOutput:
    """What captioners see of a training step, without the denoising queries.

    Boxes and scores come without gradient: phrases teach what queries hold, not where boxes are.

    Args:
        output: of the detector.
        layer: of the decoder, whose queries are seen.
        frame: where the images lie in the input.
        quirks: see :class:`Quirks`.
    """
    noisy = 0 if output.denoising is None else output.denoising.content.shape[1]
    queries = output.decoded.hidden_states[layer]
    boxes = output.predictions.boxes[layer].detach()[:, noisy:]
    first = 0 if quirks.region_queries_ignore_denoising else noisy
    queries = queries[:, first : first + boxes.shape[1]]
    scores = output.predictions.logits[layer].detach()[:, noisy:].amax(-1)
    return detector_output(output.encoded, frame, queries, boxes, scores)


def image_regions(conversations: Sequence[Tokens], device: torch.device) -> RegionBatch:
    """The whole image for every mark of the conversations of each image.

    Raises:
        DataError: a conversation speaks of a second image.
    """
    for number, batch in enumerate(conversations):
        if any(slot.index for tokens in batch for slot in tokens.slots):
            raise DataError(
                f"a conversation of image {number} of the batch marks a second <image>; LLMDet "
                "sees one image a sample: write <image:0>, or one mark"
            )
    counts = [sum(len(tokens.slots) for tokens in batch) for batch in conversations]
    return batch_regions(counts, device)


def matched_regions(
    conversations: Sequence[Tokens], matches: Matches, boxes: Sequence[Tensor], seen: DetectorOutput
) -> tuple[RegionBatch, list[TokenizedConversation]]:
    """The boxes that conversations speak of with their queries, and these conversations.

    With more boxes than queries some boxes have no query; conversations about them are left out,
    and the host waits for the device to know which these are.

    Args:
        conversations: of each image; ``<region:3>`` is its box 3.
        matches: of the decoder layer that is seen.
        boxes: of each image [N_i, 4] xyxy in pixels of the input.
        seen: tells where images lie in the input.

    Raises:
        DataError: a conversation speaks of a box that the image does not have.
    """
    device = seen.tokens.device
    queries: list[Tensor] = []
    chosen: list[Tensor] = []
    counts: list[int] = []
    kept: list[TokenizedConversation] = []
    for number, batch in enumerate(conversations):
        _check_boxes(batch, number, len(boxes[number]))
        query_of_match = matches.query_indices[number]
        matched: Sequence[int] = range(len(query_of_match))
        if len(query_of_match) < len(boxes[number]):
            matched = matches.box_indices[number].tolist()
        place = {box: position for position, box in enumerate(matched)}
        known = [t for t in batch if all(slot.index in place for slot in t.slots)]
        wanted = [slot.index for tokens in known for slot in tokens.slots]
        index = torch.tensor([wanted, [place[box] for box in wanted]], dtype=torch.int64)
        index = index.to(device, non_blocking=True)
        chosen.append(boxes[number][index[0]])
        queries.append(query_of_match[index[1]])
        counts.append(len(wanted))
        kept += known
    regions = batch_regions(counts, device, queries=torch.cat(queries))
    original = seen.frame.original_boxes(torch.cat(chosen), regions.image)
    return replace(regions, boxes=original), kept


def _check_boxes(conversations: Tokens, image: int, boxes: int) -> None:
    largest = max((slot.index for t in conversations for slot in t.slots), default=-1)
    if largest >= boxes:
        raise DataError(
            f"a conversation of image {image} of the batch names box {largest}, but it has "
            f"{boxes}; draw regions after boxes are filtered"
        )
