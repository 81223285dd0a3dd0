"""Causal language models of transformers: building them, and getting them out of LLaVA's files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from llmdet.errors import ConfigError
from llmdet.models.hub_weights import read_model
from llmdet.utils.hub import hub_options

logger = logging.getLogger(__name__)

#: Architectures of the original code of LLaVA and GLaMM, whose text part transformers knows by
#: another name.
_LLAVA_TEXT = {
    "LlavaQwenForCausalLM": "qwen2",
    "LlavaLlamaForCausalLM": "llama",
    "GLaMMForCausalLM": "llama",
}
#: Words in architectures of models around a language model that transformers does not know.
_FAMILIES = {"qwen": "qwen2", "llama": "llama"}
#: Where multimodal files keep the text part -> where a causal LM has it.
_TEXT_KEYS = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
#: Fields of configurations that change logits after the head, which the caption loss reads.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")

_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """A ``with`` block in which language models are built on the meta device.

    They take no memory, until another process of a run sends them their weights.
    """
    token = _WITHOUT_WEIGHTS.set(True)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(token)


def build_causal_lm(
    model: str | Mapping[str, Any], *, pretrained: bool = True, dtype: torch.dtype
) -> Any:
    """A causal language model, frozen and in eval mode.

    Args:
        model: folder or hub id, also of a LLaVA whose text part is wanted, or the fields of a
            transformers configuration, ``model_type`` among them (then weights are random).
        pretrained: with False, only the configuration of a folder is read.
        dtype: of the weights.

    Raises:
        ConfigError: the configuration is not one of a causal language model we can read.
        CheckpointError: the folder lacks weights of the language model.
    """
    from transformers import AutoModelForCausalLM

    if isinstance(model, Mapping):
        config, source = _config_from_fields(dict(model)), None
    else:
        config, source = _read_config(model), model if pretrained else None
    changed = [field for field in _LOGIT_CHANGES if getattr(config, field, None) not in (None, 1)]
    if changed:
        raise ConfigError(
            f"'{config.model_type}' changes its logits after the head ({changed[0]}), which the "
            "caption loss does not follow; choose another language model"
        )
    if _WITHOUT_WEIGHTS.get():
        with torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(config, dtype=dtype)
    elif source is None:
        causal_lm = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        causal_lm = _load(source, config, dtype)
    return causal_lm.requires_grad_(False).eval()


def add_lora(
    causal_lm: nn.Module,
    r: int = 128,
    alpha: int = 256,
    dropout: float = 0.0,
    targets: tuple[str, ...] | list[str] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ),
) -> None:
    """Puts trainable float32 LoRA maps of rank ``r`` beside the named linear maps, in place.

    Raises:
        ConfigError: none of the named maps exists.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets), bias="none"
    )
    try:
        inject_adapter_in_model(config, causal_lm)
    except ValueError as error:
        raise ConfigError(f"lora.targets={list(targets)}: {error}") from error
    for name, parameter in causal_lm.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def _config_from_fields(fields: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    if "model_type" not in fields:
        raise ConfigError("lmm.model given as a dict needs 'model_type', e.g. 'qwen2'")
    try:
        return AutoConfig.for_model(**fields)
    except ValueError as error:
        raise ConfigError(f"lmm.model is no configuration of transformers: {error}") from error


def _read_config(source: str) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    try:
        fields, _ = PretrainedConfig.get_config_dict(source, **hub_options(source))
    except OSError as error:
        raise ConfigError(
            f"lmm.model='{source}' is no folder with a config.json and not reachable as a hub id"
        ) from error
    kind = _text_type(fields)
    if kind is not None:
        kept = {key: value for key, value in fields.items() if not key.startswith("mm_")}
        return _config_from_fields(kept | {"model_type": kind})
    try:
        place = hub_options(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **place)
        return config.get_text_config()
    except ValueError as error:
        raise ConfigError(f"lmm.model='{source}' is no model of transformers: {error}") from error


def _text_type(fields: Mapping[str, Any]) -> str | None:
    """The text part's type where a configuration's own is no language model of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    architecture = (fields.get("architectures") or [""])[0]
    if architecture in _LLAVA_TEXT:
        return _LLAVA_TEXT[architecture]
    if fields.get("model_type") in CONFIG_MAPPING:
        return None
    return next((kind for word, kind in _FAMILIES.items() if word in architecture.lower()), None)


def _load(source: str, config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    causal_lm, others = read_model(
        AutoModelForCausalLM, source, config, setting="lmm", keys=_TEXT_KEYS, dtype=dtype
    )
    if others:
        logger.info(
            "%d tensors of '%s' are not the language model's and were left out, e.g. %s",
            len(others),
            source,
            others[0],
        )
    return causal_lm
