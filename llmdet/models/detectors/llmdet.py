"""LLMDet: a grounding detector that a language model teaches (arXiv 2501.18954)."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.detectors.captioning import describe_batch, look
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.lmm.connector import read_connector
from llmdet.models.lmm.image_captioner import ImageCaptioner
from llmdet.models.lmm.region_captioner import RegionCaptioner
from llmdet.models.lmm.view import training_view
from llmdet.registry import MODELS
from llmdet.utils.construct import check_keys, construct

Config = Mapping[str, Any]


@MODELS.register_module()
class LLMDet(GroundingDINO):
    """Detection losses, plus image caption loss, plus region caption loss.

    Args:
        lmm: the language model, see :class:`LanguageModel`; None for the plain detector.
        image_captioner: settings of :class:`ImageCaptioner`, or None for no such loss.
        region_captioner: settings of :class:`RegionCaptioner`, or None for no such loss.
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
        known = [
            *inspect.signature(LLMDet).parameters,
            *inspect.signature(GroundingDINO).parameters,
        ]
        check_keys(detector, known, "model")
        super().__init__(**detector)
        self.freeze_detector = freeze_detector
        if freeze_detector:
            self.requires_grad_(False)
        self.lmm: Any = None
        self.image_captioner: ImageCaptioner | None = None
        self.region_captioner: RegionCaptioner | None = None
        if lmm is None:
            return
        self.lmm = MODELS.build(self._fit_region_attention(dict(lmm)))
        sizes = {"lmm": self.lmm, "in_dims": self.encoder.embed_dims}
        if image_captioner is not None:
            self.image_captioner = construct(
                ImageCaptioner,
                image_captioner,
                "model.image_captioner",
                quirks=self.quirks,
                **sizes,
            )
        if region_captioner is not None:
            self.region_captioner = construct(
                RegionCaptioner, region_captioner, "model.region_captioner", **sizes
            )
        self._check_settings()
        if connector is not None:
            weights = read_connector(connector)
            for captioner in (self.image_captioner, self.region_captioner):
                if captioner is not None:
                    captioner.connector.load_state_dict(weights)

    def train(self, mode: bool = True) -> LLMDet:
        """Set training mode; a frozen detector stays in eval mode."""
        super().train(mode and not self.freeze_detector)
        if self.lmm is not None:
            self.lmm.train(mode)
        return self

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Return all losses by name, always the same names; arguments as in ``forward_train``.

        Samples may carry ``image_caption`` (prompt, answer) and ``region_captions`` (box_index,
        answers); each is optional, and where a batch has none its loss is zero.
        """
        if self.freeze_detector:
            return self._alignment_loss(batch_inputs, batch_data_samples)
        output = self.forward_train(batch_inputs, batch_data_samples)
        losses = dict(output.losses)
        view = training_view(output, self.quirks)
        if self.image_captioner is not None:
            captions = [sample.get("image_caption") for sample in batch_data_samples]
            losses["loss_lmm_image"] = self.image_captioner.loss(self.lmm, view, captions)
        if self.region_captioner is not None:
            phrases = [sample.get("region_captions") for sample in batch_data_samples]
            losses |= self.region_captioner.loss(self.lmm, view, output.matches, phrases)
        return losses

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
            ConfigError: captions are asked for that the model was not built to give.
        """
        samples = super().predict(batch_inputs, batch_data_samples, rescale)
        if captions:
            self.describe(batch_inputs, samples, captions, boxes, rescale=rescale, **generation)
        return samples

    @torch.no_grad()
    def describe(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        captions: Collection[str],
        boxes: Sequence[Tensor] | None = None,
        *,
        rescale: bool = True,
        **generation: Any,
    ) -> None:
        """Describe without detecting; arguments as in :meth:`predict`, which calls this.

        Without ``boxes``, the samples' ``pred_instances`` are described; ``rescale`` says whether
        theirs are boxes of the original image.
        """
        describe_batch(
            self, batch_inputs, batch_data_samples, set(captions), boxes, rescale, generation
        )

    def _fit_region_attention(self, lmm: dict[str, Any]) -> dict[str, Any]:
        """Give region attention the width and the levels of the encoder's memory."""
        if lmm.get("region_attention") is not None:
            sizes = {"embed_dims": self.encoder.embed_dims, "num_levels": len(self.level_embed)}
            lmm["region_attention"] = {**sizes, **lmm["region_attention"]}
        return lmm

    def _alignment_loss(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        assert self.image_captioner is not None  # _check_settings has seen to it
        with torch.no_grad():
            view = look(self, batch_inputs, batch_data_samples)
        captions = [sample.get("image_caption") for sample in batch_data_samples]
        return {"loss_lmm_image": self.image_captioner.loss(self.lmm, view, captions)}

    def _check_settings(self) -> None:
        if self.image_captioner is None and self.region_captioner is None:
            raise ConfigError(
                "model.lmm is given but neither image_captioner nor region_captioner; set "
                "lmm=None for the plain detector"
            )
        if self.freeze_detector and (self.image_captioner is None or self.region_captioner):
            raise ConfigError(
                "model.freeze_detector=True trains the image captioner and nothing else: give "
                "image_captioner and set region_captioner=None"
            )
        image_looks = self.image_captioner is not None and self.image_captioner.look
        looks = self.region_captioner is not None or image_looks
        if self.lmm.reference_head is not None and not looks:
            raise ConfigError(
                "model.lmm.region_attention would never be used: set it to None, or "
                "image_captioner.look=True, or add a region_captioner"
            )
