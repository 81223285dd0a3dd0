"""From data samples to prompts and ground truth, without asking the device for anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from llmdet.errors import DataError
from llmdet.models.heads.matching import Targets
from llmdet.models.text.bert import BertModel
from llmdet.models.text.prompt import Prompt, build_prompts, token_map
from llmdet.models.transformer.boxes import xyxy_to_cxcywh


def prepare_targets(
    samples: Sequence[DetDataSample], language_model: BertModel, device: torch.device
) -> tuple[list[Prompt], list[Targets], list[Tensor]]:
    """Build the prompt and the ground truth of every image.

    Args:
        samples: see :meth:`GroundingDINO.forward_train`.
        language_model: gives the tokenizer and the longest prompt.
        device: where the targets shall be.

    Returns:
        One prompt, one :class:`Targets` and one [N] int64 tensor of label ids per image.

    Raises:
        DataError: a text that does not fit into one prompt, or spans without tokens.
    """
    prompts = [_training_prompt(sample, language_model) for sample in samples]
    maps = token_map(prompts, language_model.tokenizer, language_model.max_tokens)
    if language_model.pad_to_max:
        maps = F.pad(maps, (0, language_model.max_tokens - maps.shape[-1]))
    maps = maps.float().to(device, non_blocking=True)  # [B, K, L]
    targets, labels = [], []
    for sample, rows in zip(samples, maps, strict=True):
        instances = sample.gt_instances
        height, width = sample.img_shape[:2]
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        corners = get_box_tensor(instances.bboxes).to(device).float()
        corners = corners / scale.to(device, non_blocking=True)
        ids = instances.labels.to(device)
        positive_map = rows[ids]
        # Checked where the labels are, so that the host does not wait for the device.
        torch._assert_async(
            positive_map.any(-1).all(), "a label has no tokens: tokens_positive lacks it"
        )
        targets.append(
            Targets(
                boxes=xyxy_to_cxcywh(corners),
                corners=corners,
                positive_map=positive_map,
                size=(height, width),
            )
        )
        labels.append(ids)
    return prompts, targets, labels


def _training_prompt(sample: DetDataSample, language_model: BertModel) -> Prompt:
    spans = sample.get("tokens_positive")
    if spans is not None and not spans:  # a sentence none of whose words is shown in the image
        return Prompt(sample.text, (), ())
    prompts = build_prompts(
        sample.text,
        custom_entities=spans is None,
        tokens_positive=spans,
        tokenizer=language_model.tokenizer,
        max_tokens=language_model.max_tokens,
    )
    if len(prompts) > 1:
        raise DataError(
            f"{sample.get('img_path', 'a sample')}: its {sum(len(p.entities) for p in prompts)} "
            f"classes exceed the {language_model.max_tokens} tokens of one prompt; sample fewer "
            "negatives with RandomSamplingNegPos(num_sample_negative=...)"
        )
    return prompts[0]
