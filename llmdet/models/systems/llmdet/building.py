"""From a config's settings to the language part of LLMDet: the one place that knows its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from llmdet.errors import ConfigError
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.quirks import Quirks
from llmdet.models.regions.connector import read_connector
from llmdet.registry import MODELS
from llmdet.utils.construct import construct

from .adapter import RegionAttentionAdapter
from .captioner import IMAGE_CAPTIONER, REGION_CAPTIONER, Captioner, CaptionerSettings

Config = Mapping[str, Any]


@dataclass(frozen=True)
class LanguageParts:
    """What teaches a detector."""

    lmm: LanguageModel
    image_captioner: Captioner | None
    region_captioner: Captioner | None


def build_language(
    lmm: Config,
    image_captioner: Config | None,
    region_captioner: Config | None,
    connector: str | None = None,
    *,
    embed_dims: int,
    num_levels: int,
    quirks: Quirks,
) -> LanguageParts:
    """Build the language model with its region attention, and the captioners.

    Args:
        lmm, image_captioner, region_captioner, connector: as :class:`LLMDet` takes them.
        embed_dims: width C of encoder memory and object queries.
        num_levels: levels of the pyramid.
        quirks: see :class:`Quirks`.

    Raises:
        ConfigError: a setting is unknown, or region attention would never be used.
        CheckpointError: the connector's file cannot be used.
    """
    settings = {
        name: construct(CaptionerSettings, {**defaults, **given}, f"model.{name}")
        for name, defaults, given in (
            ("image_captioner", IMAGE_CAPTIONER, image_captioner),
            ("region_captioner", REGION_CAPTIONER, region_captioner),
        )
        if given is not None
    }
    language = dict(lmm)
    attention = _region_attention(
        language.pop("region_attention", None), settings, embed_dims, num_levels
    )
    encoders = {name: MODELS.build(given.encoder) for name, given in settings.items()}
    outputs = {name: MODELS.build(given.output) for name, given in settings.items()}
    tokens = chain.from_iterable(output.added_tokens for output in outputs.values())
    built = MODELS.build(
        {**language, "adapter": attention, "added_tokens": tuple(dict.fromkeys(tokens))}
    )
    captioners = {
        name: Captioner(given, encoders[name], outputs[name], built, embed_dims, attention, quirks)
        for name, given in settings.items()
    }
    if connector is not None:
        weights = read_connector(connector)
        for captioner in captioners.values():
            captioner.connector.load_state_dict(weights)
    image, region = captioners.get("image_captioner"), captioners.get("region_captioner")
    return LanguageParts(built, image, region)


def _region_attention(
    settings: Config | None,
    captioners: Mapping[str, CaptionerSettings],
    embed_dims: int,
    num_levels: int,
) -> RegionAttentionAdapter | None:
    if settings is None:
        return None
    if not any(captioner.look for captioner in captioners.values()):
        raise ConfigError(
            "model.lmm.region_attention would never be used: set it to None, or "
            "image_captioner.look=True, or add a region_captioner"
        )
    sizes = {"embed_dims": embed_dims, "num_levels": num_levels}
    return RegionAttentionAdapter(**{**sizes, **settings})
