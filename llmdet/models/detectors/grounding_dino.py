"""Grounding DINO: a detector that finds what a text names (arXiv 2303.05499, MM 2401.02361)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from llmdet.models.detectors.dino import DINODetector
from llmdet.models.detectors.inference import (
    DetectionRun,
    bring_to_host,
    chunks_at_once,
    join_chunks,
    prompts_of,
    read_detections,
    split_jobs,
)
from llmdet.models.detectors.initialisation import init_own_weights
from llmdet.models.detectors.settings import TestSettings, check_text_length
from llmdet.models.detectors.targets import prepare_targets
from llmdet.models.detectors.tuning import Tuning
from llmdet.models.heads.matching import Targets
from llmdet.models.structures import FeaturePyramid, PromptedFeatures, TextFeatures
from llmdet.models.text.learned_classes import LearnedClasses
from llmdet.ops.linear import use_fast_linear
from llmdet.prompts.types import TokenizedPrompt
from llmdet.registry import MODELS

Config = Mapping[str, Any]


@MODELS.register_module()
class GroundingDINO(DINODetector):
    """DINO whose queries are compared with the words of a text, which joins in from the start.

    Samples carry a :class:`GroundingSample` or mmdet's fields that make one: ``text`` (a sentence,
    or a list of class names), ``custom_entities``, ``tokens_positive`` and ``caption_prompt``.

    Args:
        language_model: the text encoder, a module of the registry.
        freeze_lm: the text encoder gets no gradient and stays in eval mode.
        learned_classes: names that get an embedding to learn, see :class:`LearnedClasses`; those of
            a checkpoint are known without.
        tuning: settings of :class:`Tuning`: train some parts, or LoRA in them; None trains all.
        dino: settings of :class:`DINODetector`; ``test_cfg`` those of :class:`TestSettings`.
    """

    settings_type = TestSettings
    test_cfg: TestSettings

    def __init__(
        self,
        *,
        language_model: Config,
        freeze_lm: bool = False,
        learned_classes: Sequence[str] = (),
        tuning: Config | None = None,
        **dino: Any,
    ) -> None:
        super().__init__(language_model=language_model, **dino)
        self.freeze_lm, self.tuning = freeze_lm, Tuning.from_config(tuning)
        self._untuned: tuple[str, ...] = ()  # modules outside of the parts that it lets train
        check_text_length(self.bbox_head, self.language_model)
        dims = self.encoder.embed_dims
        self.text_feat_map = nn.Linear(self.language_model.language_dim, dims)
        self.learned_classes = LearnedClasses(dims)
        self.learned_classes.begin(learned_classes)
        init_own_weights(self)
        nn.init.xavier_uniform_(self.text_feat_map.weight)
        nn.init.zeros_(self.text_feat_map.bias)
        self.freeze()
        use_fast_linear(self)

    def freeze(self) -> None:
        super().freeze()
        if self.tuning is not None:
            self._untuned = self.tuning.apply_to(self)

    def _frozen_parts(self) -> list[nn.Module]:
        parts = super()._frozen_parts() + ([self.language_model] if self.freeze_lm else [])
        return [*parts, *map(self.get_submodule, self._untuned)]

    def encode_text(self, prompts: Sequence[TokenizedPrompt | str]) -> TextFeatures:
        """Encode prompts and map them to the width of the transformer."""
        text = self.language_model(prompts)
        text = dataclasses.replace(text, embedded=self.text_feat_map(text.embedded))
        return self.learned_classes(text, prompts)

    def training_targets(
        self, samples: Sequence[DetDataSample], device: torch.device
    ) -> tuple[list[TokenizedPrompt], list[Targets], list[Tensor]]:
        return prepare_targets(samples, self.language_model, device)

    @torch.no_grad()
    def detect_in(
        self,
        pyramid: FeaturePyramid,
        samples: Sequence[DetDataSample],
        *,
        rescale: bool = True,
        keep_features: bool = False,
    ) -> DetectionRun:
        settings = self.test_cfg
        prompts = [prompts_of(sample, self.language_model, settings) for sample in samples]
        found: list[list[InstanceData]] = [[] for _ in samples]
        kept: PromptedFeatures | None = None
        with settings.arithmetic(pyramid.feat.device):
            at_once = settings.chunks_per_forward or chunks_at_once(
                pyramid, prompts, self.encoder, self.language_model
            )
            for jobs in split_jobs(prompts, at_once, keep_features):
                chunks = [job.prompt for job in jobs]
                features = self.forward_prompts(pyramid.of([job.image for job in jobs]), chunks)
                parts = read_detections(self.bbox_head, features, jobs, samples, settings)
                for job, part in zip(jobs, parts, strict=True):
                    found[job.image].append(part)
                if keep_features and kept is None:
                    kept = features
                del features  # before those of the next chunks are made
        joined = [
            join_chunks(parts, sample, settings, rescale)
            for parts, sample in zip(found, samples, strict=True)
        ]
        names = [[name for chunk in chunks for name in chunk.entities] for chunks in prompts]
        return DetectionRun(bring_to_host(joined, names), settings.limit_per, kept)
