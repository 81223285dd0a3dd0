"""Captioners: region encoder, connector, conversation and output, as one thing that teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.models.accumulation import share_of_step
from llmdet.models.language.dialogue import DialogueBatch, collate_dialogue
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.language.losses import zero_loss
from llmdet.models.outputs.base import Output
from llmdet.models.quirks import Quirks
from llmdet.models.regions.base import (
    RegionBatch,
    RegionEncoder,
    RegionFeatures,
    batch_regions,
)
from llmdet.models.transformer.boxes import xyxy_to_cxcywh
from llmdet.models.vision.detector_memory import DetectorOutput
from llmdet.prompts.conversation import (
    DESCRIBE_IMAGE,
    DESCRIBE_REGION,
    Conversation,
    ConversationSettings,
    TokenizedConversation,
    ask,
)
from llmdet.prompts.conversation_tokens import ConversationTokenizer, count_learned
from llmdet.registry import MODELS

from .adapter import RegionAttentionAdapter

Config = Mapping[str, Any]


@dataclass(frozen=True)
class CaptionerSettings:
    """What a config says of a captioner; the two of LLMDet differ in nothing else.

    Attributes:
        kind: of the marks that it reads, "image" or "region".
        encoder: region encoder, of the registry.
        prompt: question of generation; the mark stands on a line of its own in front.
        look: its tokens go through the language model's region attention.
        max_length: most tokens of a conversation, those of the region encoder included.
        max_new_tokens: most tokens of an answer, where its caller does not say.
        loss_weight: factor of the loss.
        connector, output: of the registry.
        separator: a learned token between two groups of the encoder's tokens.
        decoder_layers: the loss is taken on so many last layers of the decoder.
        system: system turn of the conversation, None for none.
    """

    kind: str
    encoder: Config
    prompt: str
    look: bool
    max_length: int
    max_new_tokens: int
    loss_weight: float = 1.0
    connector: Config = field(default_factory=lambda: {"type": "VisualConnector"})
    output: Config = field(default_factory=lambda: {"type": "Text"})
    separator: bool = True
    decoder_layers: int = 1
    system: str | None = "You are a helpful assistant."


#: Defaults of ``image_captioner`` and ``region_captioner``, as in the released models.
IMAGE_CAPTIONER = {
    "kind": "image",
    "encoder": {"type": "GridCells"},
    "prompt": DESCRIBE_IMAGE,
    "look": False,
    "max_length": 1600,
    "max_new_tokens": 400,  # a long paragraph; the released models learned about 150 words
}
REGION_CAPTIONER = {
    "kind": "region",
    "encoder": {"type": "ObjectQueries"},
    "prompt": DESCRIBE_REGION,
    "look": True,
    "max_length": 40,
    "max_new_tokens": 32,
}


class Captioner(nn.Module):
    """Features of images or regions in, the loss on what is said of them, and answers out.

    Args:
        settings: see :class:`CaptionerSettings`.
        encoder: gives the features.
        output: learns and reads answers.
        lmm: the language model; not a part of this module.
        in_dims: width C of the tower that the encoder reads.
        attention: region attention of the language model, where it has any.
        quirks: see :class:`Quirks`.
    """

    def __init__(
        self,
        settings: CaptionerSettings,
        encoder: RegionEncoder,
        output: Output,
        lmm: LanguageModel,
        in_dims: int,
        attention: RegionAttentionAdapter | None,
        quirks: Quirks,
    ) -> None:
        super().__init__()
        self.settings, self.attention, self.quirks = settings, attention, quirks
        self.encoder, self.output = encoder, output
        widths = {"in_dims": encoder.out_dims(in_dims), "hidden_size": lmm.hidden_size}
        self.connector = MODELS.build(settings.connector, default_args=widths)
        self.separator: nn.Parameter | None = None
        if settings.separator and len(encoder.lengths) > 1:
            self.separator = nn.Parameter(torch.zeros(1, lmm.hidden_size))
            nn.init.normal_(self.separator, std=0.02)
        separators = 0 if self.separator is None else len(encoder.lengths) - 1
        self.conversations = ConversationTokenizer(
            lmm.tokenizer,
            ConversationSettings(
                tokenizer=lmm.tokenizer_name,
                slots=((settings.kind, sum(encoder.lengths) + separators),),
                max_length=settings.max_length,
                system=settings.system,
                added_tokens=lmm.added_tokens,
                write=output.write,
            ),
        )

    def tokenized(self, conversations: Sequence[Conversation]) -> list[TokenizedConversation]:
        """Those of a sample's conversations that this captioner reads, with their tokens.

        Raises:
            ConfigError: a worker made the tokens with other settings.
        """
        return [
            self.conversations.tokens_of(conversation)
            for conversation in conversations
            if self.conversations.reads(conversation)
        ]

    def count_learned(self, conversations: Sequence[Conversation]) -> int:
        """Supervised tokens of those of a sample's conversations that this captioner reads."""
        return sum(map(count_learned, self.tokenized(conversations)))

    def loss(
        self,
        lmm: LanguageModel,
        seen: DetectorOutput,
        regions: RegionBatch,
        conversations: Sequence[TokenizedConversation],
    ) -> Tensor:
        """What it costs to say the learned turns, weighted.

        Args:
            seen: what the detector made of B images.
            regions: one for each slot of the conversations, in their order.
            conversations: image after image.

        Returns:
            Scalar; the sum over learned tokens divided by their mean number over processes and
            micro-batches. Zero with gradient zero for every trainable parameter where there is no
            conversation.
        """
        learned = sum(map(count_learned, conversations))
        share = share_of_step(learned, self.settings.kind, seen.tokens.device)
        weight = self.settings.loss_weight * share
        if not conversations:
            if not lmm.in_every_step:
                return zero_loss([*self.parameters(), *lmm.parameters()])
            regions, conversations = self._stand_in(seen)
        dialogue = collate_dialogue(conversations, lmm.pad_id, seen.tokens.device)
        features, looking = self._read(seen, regions, dialogue)
        with looking:
            return weight * lmm.loss(dialogue, features)

    def describe(
        self,
        lmm: LanguageModel,
        seen: DetectorOutput,
        regions: RegionBatch,
        *,
        batch_size: int = 256,
        **options: Any,
    ) -> list[Any]:
        """Answers to the captioner's question, one for each region.

        Args:
            batch_size: most regions that the language model answers for at once.
            options: of transformers' ``generate``; greedy by default.
        """
        options = {"do_sample": False, "max_new_tokens": self.settings.max_new_tokens, **options}
        question = ask(f"<{self.settings.kind}>\n{self.settings.prompt}")
        tokens = self.conversations(question)
        answers: list[Any] = []
        for part in regions.split(batch_size):
            dialogue = collate_dialogue(
                [tokens] * len(part), lmm.pad_id, seen.tokens.device, left=True
            )
            features, looking = self._read(seen, part, dialogue)
            limits = self.output.constraints(lmm, dialogue, options)
            with looking:
                said = lmm.generate(dialogue, features, **{**options, **limits})
            answers += self.output.read(said, lmm.tokenizer)
        return answers

    def encode(self, seen: DetectorOutput, regions: RegionBatch) -> RegionFeatures:
        """Tokens of the language model's width for each region, and where they stand."""
        encoded = self.encoder(seen, regions)
        lengths = list(self.encoder.lengths)
        embeds: list[Tensor] = []
        boxes: list[Tensor] = []
        groups = encoded.features.split(lengths, 1), encoded.boxes.split(lengths, 1)
        for group, places in zip(*groups, strict=True):
            if embeds and self.separator is not None:
                corner = places[:, :1, :2]
                embeds.append(self.separator.expand(len(group), -1, -1).to(embeds[0].dtype))
                boxes.append(torch.cat([torch.zeros_like(corner), torch.ones_like(corner)], -1))
            embeds.append(self.connector(group, places))
            boxes.append(places)
        return RegionFeatures(torch.cat(embeds, 1), torch.cat(boxes, 1))

    def _read(
        self, seen: DetectorOutput, regions: RegionBatch, dialogue: DialogueBatch
    ) -> tuple[dict[str, Tensor], AbstractContextManager[None]]:
        """Features of the slots, and the block in which they look at the image."""
        kind = self.settings.kind
        tokens = self.encode(seen, regions)
        features = {kind: tokens.features.flatten(0, 1)}
        if self.attention is None or not self.settings.look:
            return features, nullcontext()
        references = self._references(seen, regions, tokens.boxes)
        return features, self.attention.looking(seen.encoded, regions, references, dialogue, kind)

    def _references(self, seen: DetectorOutput, regions: RegionBatch, boxes: Tensor) -> Tensor:
        """[R, k, levels, 4] cxcywh in 0..1 of the padded maps, from xyxy in 0..1 of the image."""
        levels = seen.valid_ratios.shape[1]
        if self.settings.kind == "image" and self.quirks.image_cross_attention_xyxy:
            return boxes[:, :, None].expand(-1, -1, levels, -1)
        ratios = seen.valid_ratios[regions.image].repeat(1, 1, 2)
        return xyxy_to_cxcywh(boxes)[:, :, None] * ratios[:, None]

    def _stand_in(self, seen: DetectorOutput) -> tuple[RegionBatch, list[TokenizedConversation]]:
        """A conversation about the first query or image, of which nothing shall be learned."""
        device, counts = seen.tokens.device, [0] * len(seen.tokens)
        counts[0] = 1
        first = torch.zeros(1, dtype=torch.int64, device=device)
        regions = batch_regions(counts, device, boxes=first.new_zeros(1, 4).float(), queries=first)
        return regions, [self.conversations(ask(f"<{self.settings.kind}>", "."))]
