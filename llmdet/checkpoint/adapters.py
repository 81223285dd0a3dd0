"""Trained LoRA by itself: merged into the language model, or saved as a peft adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llmdet.errors import CheckpointError

StateDict = dict[str, Tensor]

_PREFIX = "lmm.causal_lm."
#: What LoRA stands beside: the weight of a linear map, or of an attention's projections.
_KINDS = ("weight", "in_proj_weight")
_DOWN = re.compile(r"(.+)\.lora_A\.default\.weight")


def merge_lora(
    state_dict: Mapping[str, Tensor],
    alpha: float | None = None,
    detector_alpha: float | None = None,
) -> StateDict:
    """Adds each LoRA product to the map beside it; the result needs no LoRA in its config.

    Args:
        state_dict: under our names.
        alpha: ``lmm.lora.alpha`` that the model was trained with; the product weighs alpha / r.
        detector_alpha: ``tuning.lora.alpha``, likewise.

    Returns:
        A copy without LoRA keys, values in the type of the base.

    Raises:
        CheckpointError: there is no LoRA in it, or one whose alpha is not given.
    """
    stems = _lora_stems(state_dict)
    merged = {
        key.replace(".base_layer.", "."): value
        for key, value in state_dict.items()
        if ".lora_" not in key
    }
    for stem in stems:
        of_language = stem.startswith(_PREFIX)
        weight = alpha if of_language else detector_alpha
        if weight is None:
            setting = "lmm.lora.alpha" if of_language else "tuning.lora.alpha"
            raise CheckpointError(
                f"the checkpoint has LoRA at '{stem}', whose alpha it does not store: give the "
                f"config that it was trained with, which has model.{setting}"
            )
        down = state_dict[f"{stem}.lora_A.default.weight"].float()
        up = state_dict[f"{stem}.lora_B.default.weight"].float()
        name = f"{stem}.{next(kind for kind in _KINDS if f'{stem}.{kind}' in merged)}"
        base = merged[name]
        merged[name] = torch.addmm(base.float(), up, down, alpha=weight / len(down)).to(base.dtype)
    return merged


def save_adapter(
    state_dict: Mapping[str, Tensor], folder: str | Path, alpha: float, base: str | None = None
) -> None:
    """Writes the language model's LoRA as a folder that ``peft.PeftModel.from_pretrained`` opens.

    Args:
        state_dict: under our names.
        folder: where to write; made if needed.
        alpha: ``lora.alpha`` that the model was trained with.
        base: path or hub id of the language model, noted in the adapter's configuration.

    Raises:
        CheckpointError: there is no LoRA of a language model in it.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    stems = _lora_stems(state_dict, _PREFIX)
    rank = len(state_dict[f"{stems[0]}.lora_A.default.weight"])
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha),
        target_modules=sorted({stem.rpartition(".")[2] for stem in stems}),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    tensors = {
        f"base_model.model.{key.removeprefix(_PREFIX).replace('.default.', '.')}": value
        for key, value in state_dict.items()
        if ".lora_" in key and key.startswith(_PREFIX)
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        str(Path(folder) / "adapter_model.safetensors"),
        metadata={"format": "pt"},
    )


def _lora_stems(state_dict: Mapping[str, Tensor], prefix: str = "") -> list[str]:
    stems = [found[1] for key in state_dict if (found := _DOWN.fullmatch(key))]
    if not stems:
        raise CheckpointError(
            "the checkpoint has no LoRA to merge or to save; was it trained with lmm.lora or "
            "tuning.lora?"
        )
    within = [stem for stem in stems if stem.startswith(prefix)]
    if not within:
        raise CheckpointError(
            "the checkpoint's LoRA is the detector's, for which peft has no folder: merge it"
        )
    return within
