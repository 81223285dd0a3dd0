"""From data samples to prompts and ground truth, without asking the device for anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from llmdet.datasets.sample import grounding_of
from llmdet.errors import DataError, naming
from llmdet.models.heads.matching import Targets
from llmdet.models.text.bert import BertModel
from llmdet.models.text.token_map import stack_token_maps
from llmdet.models.transformer.boxes import axes_scale, xyxy_to_cxcywh
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.tokens import PromptTokenizer, check_labels
from llmdet.prompts.types import Sentence, TokenizedPrompt


def prepare_targets(
    samples: Sequence[DetDataSample], language_model: BertModel, device: torch.device
) -> tuple[list[TokenizedPrompt], list[Targets], list[Tensor]]:
    """The prompt and the ground truth of every image.

    Args:
        samples: see :meth:`GroundingDINO.forward_train`.
        language_model: tokenises prompts that no worker has tokenised.
        device: where the targets shall be.

    Returns:
        One prompt, one :class:`Targets` and one [N] int64 tensor of label ids per image.

    Raises:
        DataError: a text that does not fit into one prompt, or a label without a token.
    """
    prompts = [training_prompt(sample, language_model.prompts) for sample in samples]
    length = language_model.padded_length(max(len(prompt.ids) for prompt in prompts))
    maps = stack_token_maps(prompts, length).float().to(device, non_blocking=True)  # [B, K, L]
    labels = [sample.gt_instances.labels.to(device) for sample in samples]
    positive = [rows[ids] for rows, ids in zip(maps, labels, strict=True)]
    return prompts, image_targets(samples, positive, device), labels


def image_targets(
    samples: Sequence[DetDataSample], positive_maps: Sequence[Tensor], device: torch.device
) -> list[Targets]:
    """The ground truth of every image, from boxes in pixels of the input.

    Args:
        samples: with ``gt_instances.bboxes`` and ``img_shape``.
        positive_maps: per image [N, L] float32, 1 where a token names the box.
        device: where the targets shall be.
    """
    targets = []
    for sample, positive in zip(samples, positive_maps, strict=True):
        height, width = sample.img_shape[:2]
        corners = get_box_tensor(sample.gt_instances.bboxes).to(device).float()
        corners = corners / axes_scale(width, height, corners)
        boxes = xyxy_to_cxcywh(corners)
        targets.append(Targets(boxes, corners, positive, (height, width)))
    return targets


def training_prompt(sample: DetDataSample, tokenizer: PromptTokenizer) -> TokenizedPrompt:
    """The one text of a training sample.

    ``RandomSamplingNegPos`` has tokenised it in a worker and checked its labels there; for what
    other pipelines give, both are done here.

    Raises:
        DataError: there is no text, it needs several prompts, or a label has no token; names
            the image.
    """
    grounding = grounding_of(sample)
    if grounding.tokenized:
        return grounding.tokenized[0]
    with naming(sample.get("img_path", "a sample")):
        prompt = grounding.prompt
        if prompt is None:
            raise DataError("a training sample needs a text; add RandomSamplingNegPos")
        if isinstance(prompt, Sentence):  # without spans, labels can only be classes in order
            prompt = parse_prompt(prompt.text, custom_entities=True)
        chunks = tokenizer(prompt)
        if len(chunks) > 1:
            raise DataError(
                f"its {sum(len(chunk.entities) for chunk in chunks)} classes exceed the "
                f"{tokenizer.max_tokens} tokens of one prompt; sample fewer negatives with "
                "RandomSamplingNegPos(num_sample_negative=...)"
            )
        check_labels(sample.gt_instances.labels.tolist(), chunks[0])
        return chunks[0]
