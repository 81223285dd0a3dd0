"""Checkpoints in and out: files, key maps, loading into a model, conversion.

Formats, told apart by their keys: ``llmdet`` (ours), ``upstream`` (the original LLMDet),
``mm_grounding_dino`` (mmdet's detector, no language model) and ``transformers``
(``MMGroundingDinoForObjectDetection``). The detector's keys are equal in the first three.
"""

from .adapters import merge_lora, save_adapter
from .convert import convert_checkpoint
from .files import locate_checkpoint, read_checkpoint, write_checkpoint
from .load import LoadReport, load_weights
from .systems.llmdet import llmdet_to_upstream, upstream_to_llmdet
from .transformers_config import config_from_state_dict
from .transformers_keys import llmdet_to_transformers, transformers_to_llmdet

__all__ = [
    "LoadReport",
    "config_from_state_dict",
    "convert_checkpoint",
    "llmdet_to_transformers",
    "llmdet_to_upstream",
    "load_weights",
    "locate_checkpoint",
    "merge_lora",
    "read_checkpoint",
    "save_adapter",
    "transformers_to_llmdet",
    "upstream_to_llmdet",
    "write_checkpoint",
]
