"""DINO: what detectors share whose classes are prompts, of words or learned (arXiv 2203.03605)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.accumulation import StepTotals
from llmdet.models.detectors.inference import DetectionRun, padded_maps
from llmdet.models.detectors.settings import DetectionSettings
from llmdet.models.heads.matching import Targets
from llmdet.models.quirks import Quirks
from llmdet.models.structures import (
    DecoderOutput,
    DenoisingQueries,
    EncoderOutput,
    FeaturePyramid,
    PromptedFeatures,
    QueryProposals,
    TextFeatures,
    TrainingOutput,
)
from llmdet.models.transformer.decoder import GroundingDINODecoder
from llmdet.models.transformer.denoising import DenoisingQueryGenerator
from llmdet.models.transformer.encoder import GroundingDINOEncoder
from llmdet.models.transformer.positions import SinePositionalEncoding
from llmdet.models.transformer.proposals import select_queries
from llmdet.models.transformer.pyramid import build_pyramid, valid_level_sizes
from llmdet.registry import MODELS
from llmdet.utils.construct import construct

Config = Mapping[str, Any]
Size = tuple[int, int]


class DINODetector(BaseDetector):
    """Backbone, neck, encoder, two-stage selection, decoder and head.

    What the queries are compared with, a subclass says: :meth:`encode_text` makes features of B
    prompts, of whatever kind. The nested settings are those of mmdet's ``mm_grounding_dino``
    configs, and the parameters carry the names of its checkpoints.

    Args:
        backbone, neck, bbox_head: modules of the registry.
        encoder, decoder: settings of :class:`GroundingDINOEncoder`, :class:`GroundingDINODecoder`.
        positional_encoding: settings of :class:`SinePositionalEncoding`.
        dn_cfg: settings of :class:`DenoisingQueryGenerator`.
        num_queries: Q, boxes that the decoder refines.
        num_feature_levels: levels of the pyramid.
        use_dn: train with denoising queries; without, their label embedding is frozen.
        freeze_backbone: backbone and neck get no gradient and stay in eval mode.
        use_autocast: run backbone and neck in half precision although the rest does not.
        quirks: deviations of the original to reproduce, see :class:`Quirks`.
        with_box_refine, as_two_stage: True, as in every released model; all else is refused.
        train_cfg: ``assigner`` with its matching costs.
        test_cfg: settings of :attr:`settings_type`.
        language_model: module of the registry that reads prompts, where words are read.
    """

    #: What ``test_cfg`` says.
    settings_type: ClassVar[type[DetectionSettings]] = DetectionSettings
    #: Names of its labels, where these are not the classes of a data set.
    class_names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        backbone: Config,
        neck: Config,
        encoder: Config,
        decoder: Config,
        bbox_head: Config,
        positional_encoding: Config,
        dn_cfg: Config | None = None,
        num_queries: int = 900,
        num_feature_levels: int = 4,
        use_dn: bool = True,
        freeze_backbone: bool = False,
        use_autocast: bool = False,
        quirks: Config | None = None,
        with_box_refine: bool = True,
        as_two_stage: bool = True,
        train_cfg: Config | None = None,
        test_cfg: Config | None = None,
        language_model: Config | None = None,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        if isinstance(data_preprocessor, Mapping):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        if not (with_box_refine and as_two_stage):
            raise ConfigError("model.with_box_refine and model.as_two_stage must be True")
        if type(num_queries) is not int or num_queries < 1:
            raise ConfigError(f"model.num_queries={num_queries!r}; give a whole number from 1")
        self.quirks = construct(Quirks, quirks or {}, "model.quirks")
        self.num_queries, self.use_dn, self.use_autocast = num_queries, use_dn, use_autocast
        self.freeze_backbone = freeze_backbone
        self.test_cfg = self.settings_type.from_config(test_cfg)
        # The order of parts is that of files of optimizers and of random numbers.
        self.backbone, self.neck = MODELS.build(backbone), MODELS.build(neck)
        if language_model is not None:
            self.language_model = MODELS.build(language_model)
        self.encoder = construct(GroundingDINOEncoder, encoder, "model.encoder", quirks=self.quirks)
        self.decoder = construct(GroundingDINODecoder, decoder, "model.decoder", quirks=self.quirks)
        self.positional_encoding = construct(
            SinePositionalEncoding, positional_encoding, "model.positional_encoding"
        )
        dims = self.encoder.embed_dims
        sizes = {"num_layers": self.decoder.num_layers, "embed_dims": dims}
        stages = {"train_cfg": train_cfg, "max_per_img": self.test_cfg.max_per_img}
        self.bbox_head = MODELS.build({**sizes, **bbox_head, **stages})
        self.dn_query_generator = construct(
            DenoisingQueryGenerator,
            dn_cfg or {},
            "model.dn_cfg",
            num_classes=self.bbox_head.num_classes,
            embed_dims=dims,
            num_matching_queries=num_queries,
        )
        self.level_embed = nn.Parameter(torch.empty(num_feature_levels, dims))
        self.query_embedding = nn.Embedding(num_queries, dims)
        self.memory_trans_fc = nn.Linear(dims, dims)
        self.memory_trans_norm = nn.LayerNorm(dims)

    def freeze(self) -> None:
        """Take the gradients of what does not train."""
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.dn_query_generator.requires_grad_(self.use_dn)

    def _frozen_parts(self) -> list[nn.Module]:
        return [self.backbone, self.neck] if self.freeze_backbone else []

    def train(self, mode: bool = True) -> DINODetector:
        """Set training mode; frozen parts stay in eval mode, without dropout or drop path."""
        super().train(mode)
        if not self.quirks.dropout_in_frozen_parts:
            for part in self._frozen_parts():
                part.eval()
        return self

    # What a subclass says.

    @abstractmethod
    def encode_text(self, prompts: Sequence[Any]) -> TextFeatures:
        """What the queries of B images are compared with, of the width of the transformer."""

    @abstractmethod
    def training_targets(
        self, samples: Sequence[DetDataSample], device: torch.device
    ) -> tuple[Sequence[Any], list[Targets], list[Tensor]]:
        """The prompt, the ground truth and the label ids [N] int64 of every image."""

    @abstractmethod
    def detect_in(
        self,
        pyramid: FeaturePyramid,
        samples: Sequence[DetDataSample],
        *,
        rescale: bool = True,
        keep_features: bool = False,
    ) -> DetectionRun:
        """Detect in B images that :meth:`read_images` has read; the backbone does not run.

        Args:
            keep_features: keep what was computed of the first prompt of each image, for captions.

        Returns:
            Per image ``bboxes`` xyxy, ``scores``, ``labels``, ``bbox_index`` (the query) and
            ``label_names``, best first; how many, says ``test_cfg``. They are on the host, which
            waits for the device once.
        """

    # Stages, in the order in which they run.

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Return one [B, C, H, W] map per level, fine to coarse, of images [B, 3, H, W]."""
        device = batch_inputs.device.type
        with (
            torch.no_grad() if self.freeze_backbone else nullcontext(),
            torch.autocast(device) if self.use_autocast else nullcontext(),
        ):
            return tuple(self.neck(self.backbone(batch_inputs)))

    def pyramid(
        self, feats: Sequence[Tensor], valid_sizes: Sequence[Sequence[Size]]
    ) -> FeaturePyramid:
        """Flatten maps; ``valid_sizes`` is the unpadded (height, width) per level and image."""
        return build_pyramid(feats, valid_sizes, self.level_embed, self.positional_encoding)

    def encode(self, pyramid: FeaturePyramid, text: TextFeatures) -> EncoderOutput:
        """Let image and text attend to each other."""
        return self.encoder(pyramid, text)

    def read_memory(
        self, images: Tensor, sizes: Sequence[Size], prompts: Sequence[Any]
    ) -> EncoderOutput:
        """Everything in front of the decoder, on images that go through the backbone padded.

        Args:
            images: [B, 3, H, W], padded right and below.
            sizes: (height, width) of each image before padding.
            prompts: B prompts, as :meth:`encode_text` reads them.
        """
        text = self.encode_text(prompts)
        feats = self.extract_feat(images)
        shapes = [(feat.shape[-2], feat.shape[-1]) for feat in feats]
        valid = valid_level_sizes(sizes, (images.shape[-2], images.shape[-1]), shapes)
        return self.encode(self.pyramid(feats, valid), text)

    def propose(self, encoded: EncoderOutput, indices: Tensor | None = None) -> QueryProposals:
        """Choose the Q pixels whose features are nearest to any text token.

        Args:
            encoded: memory of image and text.
            indices: [B, Q] int64, pixels that are taken as the choice of another program, which
                rounds otherwise.

        Raises:
            DataError: the image has fewer than Q pixels on all levels together.
        """
        return select_queries(
            encoded,
            lambda memory: self.memory_trans_norm(self.memory_trans_fc(memory)),
            self.bbox_head.cls_branches[-1],
            self.bbox_head.reg_branches[-1],
            self.num_queries,
            choose_padding=self.quirks.propose_padding,
            indices=indices,
        )

    def decode(
        self,
        encoded: EncoderOutput,
        proposals: QueryProposals,
        denoising: DenoisingQueries | None = None,
    ) -> DecoderOutput:
        """Refine the proposals, and the denoising queries in front of them if there are any."""
        query = self.query_embedding.weight.expand(encoded.memory.shape[0], -1, -1)
        references = proposals.boxes.detach()
        blocked = None
        if denoising is not None:
            query = torch.cat([denoising.content.to(query.dtype), query], 1)
            references = torch.cat([denoising.boxes_unact.sigmoid(), references], 1)
            blocked = denoising.attention_mask
        return self.decoder(query, references, encoded, self.bbox_head.reg_branches, blocked)

    # What a runner calls.

    def forward_train(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> TrainingOutput:
        """Run every stage with ground truth.

        Args:
            batch_inputs: [B, 3, H, W] normalised images, padded right and below.
            batch_data_samples: with ``gt_instances`` (``bboxes`` xyxy in pixels of the input,
                ``labels``), ``img_shape``, and what says what to look for.

        Raises:
            DataError: a text or a label that cannot be used; names the image.
        """
        prompts, targets, labels = self.training_targets(batch_data_samples, batch_inputs.device)
        encoded = self.read_memory(batch_inputs, [target.size for target in targets], prompts)
        proposals = self.propose(encoded)
        denoising = None
        if self.use_dn:
            denoising = self.dn_query_generator([target.corners for target in targets], labels)
        decoded = self.decode(encoded, proposals, denoising)
        predictions = self.bbox_head(decoded, encoded.text)
        losses, matches = self.bbox_head.loss(predictions, proposals, denoising, targets)
        return TrainingOutput(
            encoded, proposals, denoising, decoded, predictions, tuple(matches), losses
        )

    def count_step(self, batches: Sequence[Sequence[DetDataSample]]) -> StepTotals:
        """What the micro-batches of one step hold together; samples as in :meth:`loss`."""
        boxes = [len(sample.gt_instances) for samples in batches for sample in samples]
        matched = sum(min(count, self.num_queries) for count in boxes)
        noised = sum(self.dn_query_generator.number_of_noised(count) for count in boxes)
        return StepTotals(len(batches), noised, matched, max(boxes))

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Return the detection losses by name; arguments as in :meth:`forward_train`."""
        return self.forward_train(batch_inputs, batch_data_samples).losses

    @torch.no_grad()
    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        rescale: bool = True,
    ) -> Sequence[DetDataSample]:
        """Detect what each sample asks for; fills ``pred_instances`` and returns the samples.

        Metainfo ``limit_per`` ("image" or "chunk") tells metrics whether an image's detections
        were cut together, see :class:`DetectionSettings`.

        Args:
            batch_inputs: [B, 3, H, W] normalised images, padded right and below.
            batch_data_samples: with ``img_shape``, ``scale_factor`` and a
                :class:`GroundingSample`, or the fields that make one; prompts may differ between
                images.
            rescale: give boxes in pixels of the original image instead of the input.
        """
        run = self.detect(batch_inputs, batch_data_samples, rescale=rescale)
        run.write_to(batch_data_samples)
        return batch_data_samples

    @torch.no_grad()
    def detect(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], **options: bool
    ) -> DetectionRun:
        """Detect without touching the samples; arguments as in :meth:`predict`.

        Args:
            options: ``rescale`` and ``keep_features`` of :meth:`detect_in`.
        """
        with self.test_cfg.arithmetic(batch_inputs.device):
            pyramid = self.read_images(batch_inputs, batch_data_samples)
        return self.detect_in(pyramid, batch_data_samples, **options)

    def read_images(self, batch_inputs: Tensor, samples: Sequence[DetDataSample]) -> FeaturePyramid:
        """All that no text changes of images [B, 3, H, W]; none depends on another's size."""
        sizes = [(sample.img_shape[0], sample.img_shape[1]) for sample in samples]
        maps = padded_maps(self.extract_feat, batch_inputs, sizes, self.quirks.pad_before_backbone)
        return self.pyramid(maps.feats, maps.valid_sizes)

    def forward_prompts(self, pyramid: FeaturePyramid, prompts: Sequence[Any]) -> PromptedFeatures:
        """Run everything that prompts take part in on B images with one prompt each."""
        encoded = self.encode(pyramid, self.encode_text(prompts))
        proposals = self.propose(encoded)
        decoded = self.decode(encoded, proposals)
        return PromptedFeatures(encoded, proposals, decoded, self.bbox_head(decoded, encoded.text))

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]
    ) -> tuple[Tensor, Tensor]:
        output = self.forward_train(batch_inputs, batch_data_samples).predictions
        return output.logits[-1], output.boxes[-1]
