"""Trained LoRA by itself: merged into the language model, or saved as a peft adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from llmdet.errors import CheckpointError

StateDict = dict[str, Tensor]

_PREFIX = "lmm.causal_lm."
_DOWN = re.compile(r"(.+)\.lora_A\.default\.weight")


def merge_lora(state_dict: Mapping[str, Tensor], alpha: float) -> StateDict:
    """Adds each LoRA product to the map beside it; the result needs ``lora=None``.

    Args:
        state_dict: under our names.
        alpha: ``lora.alpha`` that the model was trained with; the product weighs alpha / r.

    Returns:
        A copy without LoRA keys, values in the type of the base.

    Raises:
        CheckpointError: there is no LoRA in it.
    """
    stems = _lora_stems(state_dict)
    merged = {
        key.replace(".base_layer.", "."): value
        for key, value in state_dict.items()
        if ".lora_" not in key
    }
    for stem in stems:
        down = state_dict[f"{stem}.lora_A.default.weight"].float()
        up = state_dict[f"{stem}.lora_B.default.weight"].float()
        base = merged[f"{stem}.weight"]
        merged[f"{stem}.weight"] = (base.float() + alpha / len(down) * up @ down).to(base.dtype)
    return merged


def save_adapter(
    state_dict: Mapping[str, Tensor], folder: str | Path, alpha: float, base: str | None = None
) -> None:
    """Writes LoRA as a folder that ``peft.PeftModel.from_pretrained`` opens.

    Args:
        state_dict: under our names.
        folder: where to write; made if needed.
        alpha: ``lora.alpha`` that the model was trained with.
        base: path or hub id of the language model, noted in the adapter's configuration.

    Raises:
        CheckpointError: there is no LoRA in it.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    stems = _lora_stems(state_dict)
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
        if ".lora_" in key
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        str(Path(folder) / "adapter_model.safetensors"),
        metadata={"format": "pt"},
    )


def _lora_stems(state_dict: Mapping[str, Tensor]) -> list[str]:
    stems = [found[1] for key in state_dict if (found := _DOWN.fullmatch(key))]
    if not stems:
        raise CheckpointError(
            "the checkpoint has no LoRA to merge or to save; was it trained with lmm.lora?"
        )
    return stems
