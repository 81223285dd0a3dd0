"""How a model that outgrows one device is spread over several: configs name one as ``strategy``."""

from .base import Strategy, build_strategy
from .fsdp2 import FSDP2
from .zero import DeepSpeed

__all__ = ["FSDP2", "DeepSpeed", "Strategy", "build_strategy"]
