"""What ``test_cfg`` and ``train_cfg`` of a detector may say; every key and value is checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch

from llmdet.errors import ConfigError
from llmdet.prompts.noun_phrases import METHODS
from llmdet.prompts.types import check_granularity
from llmdet.prompts.writing import PromptOptions
from llmdet.utils.construct import construct

LIMITS = ("image", "chunk")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ReferringSettings:
    """Protocol of referring expressions (:mod:`llmdet.models.text.referring`).

    Attributes:
        subject_only: only the tokens of the first noun phrase are scored.
        position_boost: scores grow in the direction that the expression names.
    """

    subject_only: bool = False
    position_boost: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool):
                raise ConfigError(
                    f"model.test_cfg.referring.{name}={value!r}; choose True or False"
                )


@dataclass(frozen=True)
class DetectionSettings:
    """What ``test_cfg`` may say of any detector.

    Attributes:
        max_per_img: most detections, of an image or of a chunk as ``limit_per`` says.
        limit_per: "image" keeps the best of all chunks together, as COCO AP and users want it;
            "chunk" keeps the best of every prompt and never cuts again, as fixed AP needs it.
            Each sample that was predicted carries it as metainfo ``limit_per``.
        dtype: what matrix products are computed in: "float32", "bfloat16" or "float16". Sampling
            locations and boxes are float32 in any case.
    """

    max_per_img: int = 300
    limit_per: str = "image"
    dtype: str = "float32"

    def arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        """Where the detector runs: autocast to ``dtype``, or nothing for float32."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.dtype))

    @classmethod
    def from_config(cls, test_cfg: Mapping[str, Any] | None) -> Self:
        """Read ``model.test_cfg``.

        Raises:
            ConfigError: a key is unknown, or a value out of range.
        """
        return construct(cls, test_cfg or {}, "model.test_cfg")

    def __post_init__(self) -> None:
        if self.limit_per not in LIMITS:
            raise ConfigError(
                f"model.test_cfg.limit_per={self.limit_per!r}; choose 'image', or 'chunk' for "
                "fixed AP"
            )
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"model.test_cfg.dtype={self.dtype!r}; choose one of {', '.join(DTYPES)}"
            )
        _check_count("max_per_img", self.max_per_img)


@dataclass(frozen=True)
class TestSettings(DetectionSettings):
    """The protocol of a detection by words: all of ``test_cfg`` that changes what is found.

    Attributes:
        chunked_size: most class names in one prompt; -1: as many as fit into the text encoder.
        chunks_per_forward: how many pairs of image and prompt run at once; None: 8, or fewer
            where an image's pyramid is so large that they would take more than half of the free
            memory.
        noun_phrases: method for sentences, see :mod:`llmdet.prompts.noun_phrases`.
        referring: settings of :class:`ReferringSettings`.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    chunked_size: int = -1
    chunks_per_forward: int | None = None
    noun_phrases: str = "auto"
    referring: ReferringSettings = ReferringSettings()

    @property
    def prompt_options(self) -> PromptOptions:
        """How prompts are written under these settings."""
        return PromptOptions(self.chunked_size, self.noun_phrases, self.referring.subject_only)

    @classmethod
    def from_config(cls, test_cfg: Mapping[str, Any] | None) -> TestSettings:
        settings = dict(test_cfg or {})
        referring = settings.pop("referring", None) or {}
        return construct(
            cls,
            settings,
            "model.test_cfg",
            referring=construct(ReferringSettings, referring, "model.test_cfg.referring"),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noun_phrases not in METHODS:
            raise ConfigError(
                f"model.test_cfg.noun_phrases={self.noun_phrases!r}; choose one of "
                f"{', '.join(METHODS)}"
            )
        if self.chunks_per_forward is not None:
            _check_count("chunks_per_forward", self.chunks_per_forward, ", or None to choose it")
        if self.chunked_size != -1:
            _check_count("chunked_size", self.chunked_size, ", or -1 for as many as fit")


@dataclass(frozen=True)
class ProposalSettings(DetectionSettings):
    """The protocol of proposals.

    Attributes:
        granularity: of images that name none, one of :data:`GRANULARITIES`.
    """

    max_per_img: int = 900
    granularity: str = "fine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.granularity, "model.test_cfg.granularity")


def _check_count(name: str, value: Any, otherwise: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"model.test_cfg.{name}={value!r}; give a whole number of at least 1{otherwise}"
        )


def check_text_length(head: Any, language_model: Any) -> None:
    """Refuse a head that was set to another length of text than the text encoder."""
    given = head.cls_branches[0].max_text_len
    if given is not None and given != language_model.max_tokens:
        raise ConfigError(
            f"model.bbox_head.contrastive_cfg.max_text_len={given}, but "
            f"model.language_model.max_tokens={language_model.max_tokens}: leave the first out"
        )


def leave_learned_classes(model: Any) -> None:
    """Leave it to a checkpoint which classes a model has learned.

    Args:
        model: ``model`` of a config, changed in place.
    """
    if not model.pop("learned_classes", None) or not model.get("tuning"):
        return
    parts = [part for part in model["tuning"].get("parts", ()) if part != "learned_classes"]
    model["tuning"] = {**model["tuning"], "parts": parts} if parts else None
