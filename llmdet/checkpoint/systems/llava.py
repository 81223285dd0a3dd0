"""Region language models as folders of transformers' LLaVA-1.5 format.

Reading needs no conversion: a config names the folder as the model of the tower, of the language
model and of the connector. Writing puts what LLaVA has into the folder, and what it has not
(finer maps, a connector of regions) into ``regions/`` beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmdet.checkpoint.files import write_checkpoint
from llmdet.errors import CheckpointError

#: Our connector's maps -> the projector's.
_PROJECTOR = {"0": "linear_1", "2": "linear_2"}


def write_llava(model: nn.Module, folder: str | Path) -> list[str]:
    """Write a ``RegionLMM`` of one CLIP or SigLIP tower.

    Args:
        model: with a two-layer ``MLPConnector`` for images, and a language model without LoRA and
            added tokens.
        folder: gets config, safetensors and tokenizer as transformers reads them, and
            ``regions/model.safetensors`` where there is more.

    Returns:
        Names of the tensors in ``regions/``; :func:`llmdet.checkpoint.load_weights` reads them,
        with the other parts in ``load_missing``.

    Raises:
        CheckpointError: the format has no place for what the model is made of.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder, parts = Path(folder), _parts(model)
    tower, lmm = parts["tower"], parts["lmm"]
    config = LlavaConfig(
        vision_config=tower.encoder.config,
        text_config=lmm.causal_lm.config,
        image_token_index=lmm.causal_lm.config.vocab_size - 1,
        image_seq_length=dict(model.filler.lengths)["image"],  # type: ignore[union-attr, arg-type]
        vision_feature_layer=tower.layers[-1] - tower.encoder.config.num_hidden_layers - 1,
    )
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(config)
    state = {f"model.vision_tower.{k}": v for k, v in tower.encoder.state_dict().items()}
    for name, value in lmm.causal_lm.state_dict().items():
        here = name.startswith("model.")
        key = f"model.language_model.{name.removeprefix('model.')}" if here else name
        state[key] = value
    for name, value in parts["connector"].projector.state_dict().items():
        number, _, kind = name.partition(".")
        state[f"model.multi_modal_projector.{_PROJECTOR[number]}.{kind}"] = value
    llava.load_state_dict(state, assign=True)
    llava.save_pretrained(folder)
    lmm.tokenizer.save_pretrained(folder)
    written = {
        id(value) for part in parts.values() for value in part.state_dict(keep_vars=True).values()
    }
    rest = {
        name: value.detach()
        for name, value in model.state_dict(keep_vars=True).items()
        if id(value) not in written
    }
    if rest:
        write_checkpoint(folder / "regions" / "model.safetensors", rest)
    return list(rest)


def _parts(model: Any) -> dict[str, Any]:
    """What LLaVA has of the model: tower, lmm and connector."""
    towers = list(model.towers.values())
    tower = getattr(towers[0], "tower", towers[0])
    connector = dict(model.filler.connectors).get("image")
    maps = [] if connector is None else list(getattr(connector, "projector", ()))
    lora = any(".lora_" in name for name, _ in model.lmm.named_parameters())
    problems = {
        f"{len(towers)} towers": len(towers) != 1,
        f"a tower of {type(tower).__name__}": not hasattr(tower, "encoder"),
        "no two-layer connector of images": len(maps) != 3 or hasattr(connector, "box_projection"),
        "LoRA, which must be merged first": lora,
        "added tokens": bool(model.lmm.added_tokens),
    }
    found = [problem for problem, is_there in problems.items() if is_there]
    if found:
        raise CheckpointError(f"LLaVA's format has no place for this model: it has {found[0]}")
    return {"tower": tower, "lmm": model.lmm, "connector": connector}
