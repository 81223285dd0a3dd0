"""Prompts as tensors: what the text encoder made of them, and which tokens name which class."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.text.token_map import stack_token_maps
from llmdet.prompts.types import Prompt
from llmdet.prompts.writing import expression_texts


@dataclass(frozen=True)
class TextTensors:
    """P texts of one prompt as the detector reads them; K classes each, the longest has L tokens.

    The fields are the inputs of a program that takes texts, in this order.
    """

    text_features: Tensor  # [P, L, C] float32, already mapped to the width of the detector
    token_mask: Tensor  # [P, L] bool, True at tokens, False at padding
    position_ids: Tensor  # [P, L] int64, restarting after each special token
    attention_mask: Tensor  # [P, L, L] bool, True where row may attend to column
    token_map: Tensor  # [P, K, L] bool, the tokens of each class; rows without any are no class


#: Names of the inputs of a program that takes texts.
TEXT_INPUTS = tuple(field.name for field in fields(TextTensors))


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt after the text encoder, and what its labels mean."""

    tensors: TextTensors
    offsets: tuple[int, ...]  # P, the label of each text's first class
    classes: tuple[str, ...]  # name of each label
    best_token: bool = False  # a query's score is that of its best token, as of expressions

    def check_text_inputs(self) -> None:
        """Raise ConfigError where no program that takes texts can look for this."""
        if len(self.offsets) > 1:
            raise ConfigError(
                f"the prompt is cut into {len(self.offsets)} texts, and a program that takes texts "
                "has one for each image: leave --text-features out, or give fewer classes"
            )
        if self.best_token:
            raise ConfigError(
                f"'{self.classes[0]}' is a referring expression, scored by its best token, and "
                "programs that take texts score by the tokens of each class: leave "
                "--text-features out and write a file for the expression, or give it as a class"
            )

    def write(self, path: str | Path) -> None:
        """Write an ``.npz`` with the inputs of a program that takes texts, and ``classes``."""
        arrays = {name: getattr(self.tensors, name).numpy() for name in TEXT_INPUTS}
        with Path(path).open("wb") as file:
            np.savez(file, classes=np.array(json.dumps(self.classes)), **arrays)


@torch.no_grad()
def encode_prompt(model: GroundingDINO, prompt: Prompt) -> EncodedPrompt:
    """Run the text encoder on every text that a prompt is cut into.

    Args:
        model: its ``test_cfg`` says how prompts are written.
        prompt: classes, a sentence, spans or a referring expression.

    Raises:
        ConfigError: expressions are to prefer the side that they name, which no program does.
        DataError: a text is too long for the encoder.
    """
    referring = model.test_cfg.referring
    expression = bool(expression_texts(prompt))
    if expression and referring.position_boost:
        raise ConfigError(
            "model.test_cfg.referring.position_boost changes scores by the words of an "
            "expression, and exported programs do not: set it to False"
        )
    texts = model.language_model.prompts(prompt, model.test_cfg.prompt_options)
    text = model.encode_text(texts)
    tensors = TextTensors(
        text.embedded.float(),
        text.token_mask,
        text.position_ids,
        text.attention_mask,
        stack_token_maps(texts, text.token_mask.shape[1]),
    )
    return EncodedPrompt(
        tensors=TextTensors(**{name: getattr(tensors, name).cpu() for name in TEXT_INPUTS}),
        offsets=tuple(each.label_offset for each in texts),
        classes=tuple(name for each in texts for name in each.entities),
        best_token=expression and not referring.subject_only,
    )
