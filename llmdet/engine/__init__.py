"""What runs a training or a test: the runner, mixed precision, errors of a config's parts.

Importing this package registers the optimizer wrapper and makes mmengine read local
checkpoints without executing what they contain.
"""

from .amp import BFloat16OptimWrapper, use_mixed_precision
from .build import explained_build_errors
from .checkpoint import latest_checkpoint, read_training_state
from .runner import Runner, build_runner

__all__ = [
    "BFloat16OptimWrapper",
    "Runner",
    "build_runner",
    "explained_build_errors",
    "latest_checkpoint",
    "read_training_state",
    "use_mixed_precision",
]
