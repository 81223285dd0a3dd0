"""Universal proposals: DINO whose two classes are learned prompts and no words (2411.18363)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError, DataError, naming
from llmdet.models.detectors.dino import DINODetector
from llmdet.models.detectors.inference import DetectionRun, bring_to_host, to_original
from llmdet.models.detectors.initialisation import init_own_weights
from llmdet.models.detectors.settings import ProposalSettings
from llmdet.models.detectors.targets import image_targets
from llmdet.models.heads.matching import Targets
from llmdet.models.structures import FeaturePyramid, TextFeatures
from llmdet.ops.linear import use_fast_linear
from llmdet.prompts.types import GRANULARITIES, AnyObject
from llmdet.registry import MODELS

#: The name of all that is found.
OBJECT = AnyObject().word


@MODELS.register_module()
class ProposalDINO(DINODetector):
    """Finds objects without names, fine or coarse ones.

    Two learned vectors stand in the place of a text, one of which the queries are compared with.
    Nothing of the image is read by them: encoder and decoder have no text layers.

    Samples carry a :class:`GroundingSample` whose prompt is an :class:`AnyObject` of a granularity;
    labels are not read. At inference another prompt, or none, means ``test_cfg.granularity``.

    Args:
        dino: settings of :class:`DINODetector`; ``test_cfg`` those of :class:`ProposalSettings`.
    """

    settings_type = ProposalSettings
    class_names = (OBJECT,)
    test_cfg: ProposalSettings

    def __init__(self, **dino: Any) -> None:
        if dino.get("language_model") is not None:
            raise ConfigError("ProposalDINO reads no words: set model.language_model to None")
        super().__init__(**dino)
        self.granularity_embedding = nn.Embedding(len(GRANULARITIES), self.encoder.embed_dims)
        init_own_weights(self)
        nn.init.xavier_uniform_(self.granularity_embedding.weight)
        self.freeze()
        use_fast_linear(self)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """The learned vectors of B granularities, as texts of one token: [B, 1, C]."""
        rows = torch.tensor([GRANULARITIES.index(name) for name in prompts])
        vectors = self.granularity_embedding.weight
        one = torch.ones(len(prompts), 1, dtype=torch.bool, device=vectors.device)
        return TextFeatures(
            embedded=vectors[rows.to(vectors.device, non_blocking=True)][:, None],
            token_mask=one,
            position_ids=torch.zeros_like(one, dtype=torch.int64),
            attention_mask=one[..., None],
        )

    def training_targets(
        self, samples: Sequence[DetDataSample], device: torch.device
    ) -> tuple[list[str], list[Targets], list[Tensor]]:
        """Granularity and boxes of every image; whatever its label, a box is an object.

        Raises:
            DataError: an image does not say which granularity its boxes have.
        """
        granularities = []
        for sample in samples:
            granularity = named_granularity(sample)
            with naming(sample.get("img_path", "a sample")):
                if granularity is None:
                    raise DataError(
                        "a training sample of proposals needs a granularity; add "
                        f"AnyObjectPrompt(granularity={GRANULARITIES[0]!r}) to its pipeline"
                    )
            granularities.append(granularity)
        counts = [len(sample.gt_instances) for sample in samples]
        positive = [torch.ones(count, 1, device=device) for count in counts]
        labels = [torch.zeros(count, dtype=torch.int64, device=device) for count in counts]
        return granularities, image_targets(samples, positive, device), labels

    @torch.no_grad()
    def detect_in(
        self,
        pyramid: FeaturePyramid,
        samples: Sequence[DetDataSample],
        *,
        rescale: bool = True,
        keep_features: bool = False,
    ) -> DetectionRun:
        default = self.test_cfg.granularity
        prompts = [named_granularity(sample) or default for sample in samples]
        sizes = [(sample.img_shape[0], sample.img_shape[1]) for sample in samples]
        with self.test_cfg.arithmetic(pyramid.feat.device):
            features = self.forward_prompts(pyramid, prompts)
            last = features.predictions
            ones = [1] * len(samples)
            found = self.bbox_head.detect(last.logits[-1], last.boxes[-1], None, ones, sizes)
        if rescale:
            found = [to_original(*pair) for pair in zip(found, samples, strict=True)]
        detections = bring_to_host(found, [self.class_names] * len(samples))
        return DetectionRun(detections, "image", features if keep_features else None)


def named_granularity(sample: DetDataSample) -> str | None:
    """The granularity that a sample asks for, None where it names none."""
    prompt = grounding_of(sample).prompt
    return prompt.granularity if isinstance(prompt, AnyObject) else None
