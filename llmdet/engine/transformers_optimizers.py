"""Optimizers of transformers, imported where a config names an optimizer."""

from transformers import Adafactor

from llmdet.registry import OPTIMIZERS

OPTIMIZERS.register_module(name="Adafactor", module=Adafactor)
