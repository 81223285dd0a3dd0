"""BERT from a folder or the Hugging Face hub, or one sentence why not."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.initialization import no_init_weights
from transformers.utils import logging as progress

from llmdet.errors import ConfigError
from llmdet.prompts.tokenizers import not_found
from llmdet.utils.hub import hub_options

logger = logging.getLogger(__name__)

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json")
#: What a missing, cut off or foreign weight file raises, whichever its format.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
)


def load_bert(
    name: str, add_pooling_layer: bool = False, pretrained: bool = True
) -> transformers.BertModel:
    """BERT in float32 with SDPA attention, from a local folder or a hub id.

    A folder that holds a config but no weights gives random ones, with a warning: checkpoints of
    a detector carry its text encoder. ``pretrained=False`` reads the config alone and leaves the
    weights as memory happens to be; it may be that of a detector in transformers' format.

    Raises:
        ConfigError: it cannot be found, is no BERT, or its weights are incomplete.
    """
    try:
        place = hub_options(name)
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **place)
    except (OSError, ValueError) as error:
        raise not_found(name, error) from error
    if not pretrained and config.model_type == "mm-grounding-dino":
        config = config.text_config
    if config.model_type != "bert":
        raise ConfigError(
            f"language_model: {name!r} is a {config.model_type!r} model, BertModel needs 'bert'."
        )
    # SDPA takes the boolean mask as it is; eager attention would add it to the scores.
    options: dict[str, Any] = {
        "add_pooling_layer": add_pooling_layer,
        "attn_implementation": "sdpa",
    }
    if not pretrained:
        with no_init_weights():
            return transformers.BertModel._from_config(config, dtype=torch.float32, **options)
    folder = Path(name)
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        logger.warning(
            "%s holds a BERT config but no weights: the text encoder starts from random ones and "
            "is only useful with a checkpoint that fills them.",
            name,
        )
        return transformers.BertModel._from_config(config, dtype=torch.float32, **options)
    try:
        with _without_progress_bar():
            loaded: Any = transformers.BertModel.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **options, **place
            )
    except UNREADABLE as error:
        raise not_found(name, error) from error
    model, report = loaded
    absent = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if absent:
        raise ConfigError(
            f"language_model.name: the weights of {name!r} lack {len(absent)} tensors, the first "
            f"is {absent[0]!r}; download them again."
        )
    return model


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Loading takes no time worth a bar, and programs print results."""
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            progress.enable_progress_bar()
