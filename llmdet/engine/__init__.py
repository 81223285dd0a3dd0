"""What runs a training or a test: the runner and mixed precision.

Importing this package registers the optimizer wrapper, the test loop and the model of
test-time augmentation, and makes mmengine read local checkpoints without executing them.
"""

from .amp import BFloat16OptimWrapper, Float16OptimWrapper, use_mixed_precision
from .checkpoint import latest_checkpoint, read_training_state
from .drop_summary import DropSummaryHook
from .finite import FiniteLossHook
from .forgetting import ForgettingHook
from .interrupt import InterruptHook
from .logs import LoggerHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optimizer import GroupedOptimWrapperConstructor
from .processes import run_in_processes
from .runner import Runner, build_runner
from .saving import CheckpointHook
from .scalars import DeferredOptimWrapper, DeferredRuntimeInfoHook, FlushingLogProcessor
from .strategies import FSDP2
from .testing import ResumableTestLoop, write_predictions
from .tta import GroundingTTAModel, use_test_time_augmentation

__all__ = [
    "FSDP2",
    "BFloat16OptimWrapper",
    "CheckpointHook",
    "DeferredOptimWrapper",
    "DeferredRuntimeInfoHook",
    "DropSummaryHook",
    "EpochBasedTrainLoop",
    "FiniteLossHook",
    "Float16OptimWrapper",
    "FlushingLogProcessor",
    "ForgettingHook",
    "GroundingTTAModel",
    "GroupedOptimWrapperConstructor",
    "InterruptHook",
    "IterBasedTrainLoop",
    "LoggerHook",
    "ResumableTestLoop",
    "Runner",
    "build_runner",
    "latest_checkpoint",
    "read_training_state",
    "run_in_processes",
    "use_mixed_precision",
    "use_test_time_augmentation",
    "write_predictions",
]
