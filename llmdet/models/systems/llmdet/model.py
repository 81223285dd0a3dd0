"""LLMDet: a grounding detector that a language model teaches (arXiv 2501.18954)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError
from llmdet.models.accumulation import StepTotals
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.regions.base import batch_regions
from llmdet.models.structures import PromptedFeatures, TrainingOutput
from llmdet.models.vision.detector_memory import DetectorMemory, DetectorOutput
from llmdet.models.vision.views import View, frame_of
from llmdet.prompts.conversation import Conversation, ConversationSettings
from llmdet.prompts.types import TokenizedPrompt
from llmdet.registry import MODELS
from llmdet.utils.construct import check_keys, settings_of

from .building import build_language
from .captioner import Captioner
from .captioning import boxes_to_describe, inference_view, requested_captioners
from .teaching import image_regions, matched_regions, training_view

Config = Mapping[str, Any]


@MODELS.register_module()
class LLMDet(GroundingDINO):
    """Detection losses, plus image caption loss, plus region caption loss.

    Args:
        lmm: the language model, see :class:`LanguageModel`, and ``region_attention``, settings of
            :class:`RegionAttentionAdapter` or None; None for the plain detector.
        image_captioner, region_captioner: settings of :class:`CaptionerSettings`, or None for no
            such loss.
        connector: file that both connectors start from: a checkpoint of the alignment stage, or
            a projector file of the original; None for random weights.
        freeze_detector: train the captioners alone, on a detector that does not change: the
            alignment stage. Then there are no detection losses, and no boxes are needed.
        detector: settings of :class:`GroundingDINO`.
    """

    def __init__(
        self,
        *,
        lmm: Config | None = None,
        image_captioner: Config | None = None,
        region_captioner: Config | None = None,
        connector: str | None = None,
        freeze_detector: bool = False,
        **detector: Any,
    ) -> None:
        check_keys(detector, settings_of(LLMDet), "model")
        if freeze_detector and detector.get("tuning") is not None:
            raise ConfigError(
                "model.freeze_detector lets no part of the detector train and model.tuning some: "
                "take one of the two out"
            )
        super().__init__(**detector)
        self.freeze_detector = freeze_detector
        if freeze_detector:
            self.requires_grad_(False)
        self.lmm: LanguageModel | None = None
        self.image_captioner: Captioner | None = None
        self.region_captioner: Captioner | None = None
        if lmm is None:
            return
        self._check_captioners(image_captioner, region_captioner)
        sizes = {"embed_dims": self.encoder.embed_dims, "num_levels": len(self.level_embed)}
        parts = build_language(
            lmm, image_captioner, region_captioner, connector, quirks=self.quirks, **sizes
        )
        self.lmm = parts.lmm
        self.image_captioner = parts.image_captioner
        self.region_captioner = parts.region_captioner

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Return all losses by name, always the same names; arguments as in ``forward_train``.

        Samples may carry conversations (:func:`grounding_of`): those with ``<image>`` marks teach
        by the image caption loss, those with ``<region>`` marks, which number the boxes of
        ``gt_instances``, by the region caption loss. Where a batch has none its loss is zero.
        """
        conversations = [grounding_of(sample).conversations for sample in batch_data_samples]
        view = View(batch_inputs, frame_of(batch_data_samples, batch_inputs))
        if self.freeze_detector:
            with torch.no_grad():
                memory = DetectorMemory(self)(
                    view, [self._prompt_of(sample) for sample in batch_data_samples]
                )
            return self._image_loss(memory, conversations)
        output = self.forward_train(batch_inputs, batch_data_samples)
        seen = training_view(output, -1, view.frame, self.quirks)
        return (
            output.losses
            | self._image_loss(seen, conversations)
            | self._region_losses(output, view, batch_data_samples, conversations)
        )

    @torch.no_grad()
    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        rescale: bool = True,
        captions: Collection[str] = (),
        boxes: Sequence[Tensor] | None = None,
        **generation: Any,
    ) -> Sequence[DetDataSample]:
        """Detect, and describe what was detected.

        Args:
            batch_inputs, batch_data_samples, rescale: as in :meth:`GroundingDINO.predict`.
            captions: any of "image" and "regions"; fills ``sample.image_description`` (str) and
                ``pred_instances.captions`` (list of str).
            boxes: per image [N, 4] xyxy in pixels of the original image, to describe instead of
                the detected boxes; fills ``sample.region_descriptions``.
            generation: options of transformers' ``generate``, e.g. ``max_new_tokens``,
                ``do_sample``, ``temperature``; greedy by default.

        Raises:
            ConfigError: captions are requested that the model was not built to give.
        """
        run = self.detect(
            batch_inputs, batch_data_samples, rescale=rescale, keep_features=bool(captions)
        )
        run.write_to(batch_data_samples)
        if captions:
            self.describe(
                batch_inputs,
                batch_data_samples,
                captions,
                boxes,
                features=run.features,
                rescale=rescale,
                **generation,
            )
        return batch_data_samples

    @torch.no_grad()
    def describe(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        captions: Collection[str],
        boxes: Sequence[Tensor] | None = None,
        *,
        features: PromptedFeatures | None = None,
        rescale: bool = True,
        **generation: Any,
    ) -> None:
        """Describe images and boxes; arguments as in :meth:`predict`, which calls this.

        Args:
            features: of a detection run (:meth:`detect` with ``keep_features``); without, the
                detector runs on the first prompt of each sample.
            rescale: whether the samples' ``pred_instances``, which are described where no
                ``boxes`` are given, hold boxes of the original image.
        """
        wanted = requested_captioners(captions, self.image_captioner, self.region_captioner)
        if self.lmm is None or not wanted:
            return
        samples = batch_data_samples
        if features is None:
            features = self.detect(batch_inputs, samples, keep_features=True).features
            assert features is not None
        seen = inference_view(features, frame_of(samples, batch_inputs))
        if captioner := wanted.get("image"):
            whole = batch_regions([1] * len(samples), batch_inputs.device)
            texts = captioner.describe(self.lmm, seen, whole, **generation)
            for sample, text in zip(samples, texts, strict=True):
                sample.image_description = text
        if captioner := wanted.get("regions"):
            regions = boxes_to_describe(seen.frame, samples, boxes, rescale)
            answers = iter(captioner.describe(self.lmm, seen, regions, **generation))
            for sample, count in zip(samples, regions.counts, strict=True):
                phrases = list(islice(answers, count))
                if boxes is not None:
                    sample.region_descriptions = phrases
                else:
                    sample.pred_instances.captions = phrases

    def conversation_settings(self) -> tuple[ConversationSettings, ...]:
        """How the conversations of training samples become tokens, for each captioner."""
        captioners = (self.image_captioner, self.region_captioner)
        return tuple(c.conversations.settings for c in captioners if c is not None)

    def train(self, mode: bool = True) -> LLMDet:
        """Set training mode; a frozen detector stays in eval mode."""
        super().train(mode and not self.freeze_detector)
        if self.lmm is not None:
            self.lmm.train(mode)
        return self

    def count_step(self, batches: Sequence[Sequence[DetDataSample]]) -> StepTotals:
        """What the micro-batches of one step hold together; samples as in :meth:`loss`.

        A phrase about a box that no query was matched to counts, too: which ones these are, where
        an image has more boxes than there are queries, is not known before.
        """
        spoken = [grounding_of(sample).conversations for batch in batches for sample in batch]
        captioners = [c for c in (self.image_captioner, self.region_captioner) if c is not None]
        learned = {c.settings.kind: sum(map(c.count_learned, spoken)) for c in captioners}
        if self.freeze_detector:  # which needs no boxes
            return StepTotals(len(batches), 0, 0, 0, learned)
        return replace(super().count_step(batches), learned=learned)

    def _prompt_of(self, sample: DetDataSample) -> TokenizedPrompt | str:
        """What the encoder fuses with an image whose memory alone is read; "" without a text."""
        grounding = grounding_of(sample)
        if grounding.tokenized:
            return grounding.tokenized[0]
        return "" if grounding.prompt is None else self.language_model.prompts(grounding.prompt)[0]

    def _image_loss(
        self, seen: DetectorOutput, conversations: Sequence[Sequence[Conversation]]
    ) -> dict[str, Tensor]:
        captioner = self.image_captioner
        if captioner is None or self.lmm is None:
            return {}
        tokens = [captioner.tokenized(batch) for batch in conversations]
        regions = image_regions(tokens, seen.tokens.device)
        loss = captioner.loss(self.lmm, seen, regions, list(chain.from_iterable(tokens)))
        return {"loss_lmm_image": loss}

    def _region_losses(
        self,
        output: TrainingOutput,
        view: View,
        samples: Sequence[DetDataSample],
        conversations: Sequence[Sequence[Conversation]],
    ) -> dict[str, Tensor]:
        captioner = self.region_captioner
        if captioner is None or self.lmm is None:
            return {}
        tokens = [captioner.tokenized(batch) for batch in conversations]
        device = view.pixels.device
        boxes = [get_box_tensor(s.gt_instances.bboxes).to(device).float() for s in samples]
        depth = len(output.matches)
        losses = {}
        for layer in range(depth - captioner.settings.decoder_layers, depth):
            seen = training_view(output, layer, view.frame, self.quirks)
            regions, known = matched_regions(tokens, output.matches[layer], boxes, seen)
            loss = captioner.loss(self.lmm, seen, regions, known)
            losses[f"d{layer}.loss_lmm_region"] = loss
        return losses

    def _check_captioners(self, image: Config | None, region: Config | None) -> None:
        if image is None and region is None:
            raise ConfigError(
                "model.lmm is given but neither image_captioner nor region_captioner; set "
                "lmm=None for the plain detector"
            )
        if self.freeze_detector and (image is None or region is not None):
            raise ConfigError(
                "model.freeze_detector=True trains the image captioner and nothing else: give "
                "image_captioner and set region_captioner=None"
            )
