"""mmengine's runner, made to work without CUDA and to load any known checkpoint safely."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, master_only
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from llmdet.checkpoint import load_weights
from llmdet.checkpoint.base import ENTRY as BASE
from llmdet.checkpoint.base import base_record, learns_classes_alone
from llmdet.checkpoint.frozen import source_parts
from llmdet.checkpoint.load import load_state_dict, read_whole
from llmdet.checkpoint.sharded import is_sharded
from llmdet.datasets.text_encoder import share_text_encoder
from llmdet.errors import CheckpointError
from llmdet.models.wrappers import bare
from llmdet.registry import RUNNERS
from llmdet.utils.build import checked_builds
from llmdet.utils.config import RunConfig

from .checkpoint import latest_checkpoint, read_training_state
from .compilation import CompileSettings, compile_for_training
from .conversations import share_settings
from .learned_classes import name_learned_classes
from .logs import ROTATING_FILE, file_messages_to, own_timestamp, report_environment, share_log
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop, RepeatableRandomness
from .outcome import report_prompts, report_result
from .processes import start_processes, told_where_to_meet
from .saving import checkpoint_file
from .schedule import fit_schedule, schedule_ends, warn_of_old_schedule
from .settings import check_settings
from .slim_checkpoints import SlimCheckpoints
from .strategies import Strategy, build_strategy
from .strategies.checkpoints import fill_optimizer, read_sharded, save_spread
from .terminal import TerminalProgress
from .workers import tie_workers

logger = logging.getLogger(__name__)


@RUNNERS.register_module(name="LLMDetRunner")
class Runner(SlimCheckpoints, MMEngineRunner):
    """Runner of training and test.

    Beyond mmengine's: several processes without CUDA talk over gloo, ``load_from`` takes weights
    in every format of :func:`llmdet.checkpoint.load_weights`, and messages of ``llmdet`` loggers
    go to the run's log.
    """

    _timestamp: str
    _has_loaded: bool
    _load_from: str | None
    strategy: Strategy | None
    _is_initialised = False
    _is_spread = False
    _resumed: dict[str, Any] | None = None  # read before the model was spread

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Start the process group.

        Raises:
            ConfigError: the processes do not find each other.
        """
        with told_where_to_meet():
            if self.launcher == "pytorch":
                start_processes(env_cfg.get("dist_cfg", {}))
            super().setup_env(env_cfg)
        self._timestamp = own_timestamp(self._timestamp)

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """Build a data loader whose workers end with this process."""
        loader = MMEngineRunner.build_dataloader(*args, **kwargs)
        tie_workers(loader)
        return loader

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the run's logger, whose files rotate, for the loggers of ``llmdet`` too."""
        kwargs.setdefault("file_handler_cfg", dict(ROTATING_FILE))
        built = super().build_logger(*args, **kwargs)
        share_log(built)
        self.terminal = TerminalProgress(built)
        return built

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        runtime = {**env_cfg, "seed": self.seed, "world_size": self.world_size}
        report_environment(self.log_dir, runtime, write=self.rank == 0)

    @property
    def iter(self) -> int:
        """Iterations of the training; 0 of a test, which must not open the training's data."""
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0

    @property
    def epoch(self) -> int:
        """Epochs of the training, as :attr:`iter`."""
        return self._train_loop.epoch if isinstance(self._train_loop, BaseLoop) else 0

    def get_hooks_info(self) -> str:
        """Names of the hooks by priority; mmengine lists them anew for each of twenty stages."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    def _init_model_weights(self) -> None:
        if self._is_initialised:
            return
        self._is_initialised = True
        # mmengine writes three lines of log for each parameter.
        with file_messages_to(self.logger, Path(self.log_dir) / "initialisation.txt"):
            if self.strategy is not None and self.strategy.sends_weights:
                self.model.init_weights()  # type: ignore[operator]
            else:  # mmengine's processes send each other everything
                super()._init_model_weights()

    def dump_config(self) -> None:
        """Write the complete config into the folder of the run's log, and say where it is."""
        self._write_config(self.log_dir)
        self.logger.info("the complete config and the environment are in %s", self.log_dir)

    @master_only
    def _write_config(self, folder: str) -> None:
        self.cfg.dump(Path(folder, Path(self.cfg.filename or f"{self.timestamp}.py").name))

    def build_model(self, model: Any) -> nn.Module:
        """Build the model, of which a strategy may leave weights out in some processes."""
        self.strategy = build_strategy(self.cfg.get("strategy"))
        with nullcontext() if self.strategy is None else self.strategy.building():
            return super().build_model(model)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap for distributed training; without CUDA there are no device ids to name.

        With a strategy the model stays in host memory until it has its weights.
        """
        if self.strategy is not None:
            return model
        settings = dict(
            type="MMDistributedDataParallel",
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get("find_unused_parameters", False),
            # Gradients lie where they are exchanged, instead of being copied there and back.
            gradient_as_bucket_view=True,
        )
        if not self.distributed or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if torch.cuda.is_available():
            return super().wrap_model(model_wrapper_cfg or settings, model)
        logger.info("no CUDA device: the processes train on CPU and talk over gloo")
        settings.update(model_wrapper_cfg or {})
        return MODEL_WRAPPERS.build(settings, default_args=dict(module=model))

    def train(self) -> nn.Module:
        """Train; workers make what the model reads as it wants it."""
        for loader in (self._train_dataloader, self._val_dataloader):
            share_settings(bare(self.model), loader)
        if self._resume and self._load_from is None:
            newest = latest_checkpoint(self.work_dir)
            self._load_from = None if newest is None else str(newest)
        # Beside its weights, which are used with it. A test writes none there: it changes its own.
        self._write_config(self.work_dir)
        with closing(self.terminal):
            model = super().train()
        report_result(self)
        return model

    def _maybe_compile(self, target: str) -> None:
        """Compile what ``compile`` of the config asks for; mmengine's compiles a whole step."""
        settings = CompileSettings.from_config(self.cfg.get("compile"))
        if settings is not None:
            compile_for_training(bare(self.model), settings)

    def val(self) -> dict[str, float]:
        """Evaluate on the validation set."""
        share_settings(bare(self.model), self._val_dataloader)
        self._put_on_device()
        with closing(self.terminal):
            return super().val()

    def test(self) -> dict[str, float]:
        """Evaluate on the test set; every process has the whole model."""
        share_settings(bare(self.model), self._test_dataloader)
        self._put_on_device()
        with closing(self.terminal):
            values = super().test()
        report_prompts(self)
        return values

    def _put_on_device(self) -> None:
        if self.strategy is not None and not self._is_spread:
            self.model = self.strategy.keep_whole(self.model)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer, over what a strategy leaves to this process."""
        if self.strategy is not None and not self._is_spread:
            self._spread_model(self.strategy)
            built = super().build_optim_wrapper(optim_wrapper)
            self.model, built = self.strategy.attach(self.model, built)
            self.logger.info("%s: spread over %d processes", self.strategy, self.world_size)
            return built
        return super().build_optim_wrapper(optim_wrapper)

    def _spread_model(self, strategy: Strategy) -> None:
        """Give the model all of its weights while it is whole, then spread it."""
        gives = strategy.gives_weights
        if gives:
            self._init_model_weights()
        self._is_initialised = True
        if self._resume and self._load_from is not None:
            self._resumed = self._read_weights(str(self._load_from), "cpu", keep=gives)
        elif not self._resume:
            if gives:
                self._load_start()
            self._has_loaded = self._load_from is not None
        for part in source_parts(self.model):
            if part.frozen and self.rank == 0:
                part.record()  # which needs the whole weights
        self.model = strategy.spread(self.model)
        self._is_spread = True

    def load_or_resume(self) -> None:
        """Load ``load_from`` in whatever known format it is, or resume a run of our own.

        All must fit; ``load_missing`` of the config names the parts that may be new.
        """
        if not self._resume:
            self._load_start()
        super().load_or_resume()
        self._check_ranks()

    def _load_start(self) -> None:
        if self._load_from is not None and not self._has_loaded:
            missing = self.cfg.get("load_missing") or ()
            load_weights(bare(self.model), self._load_from, load_missing=missing)
            if learns_classes_alone(bare(self.model)):
                self.base = base_record(self._load_from)
            self._has_loaded = True
            whole = self.model.module if is_model_wrapper(self.model) else self.model
            # EMAHook copied the model before it had these weights.
            self.call_hook("after_load_checkpoint", checkpoint={"state_dict": whole.state_dict()})

    def _check_ranks(self) -> None:
        """Raise a CheckpointError where ranks would continue at different iterations."""
        iterations = all_gather_object(self.iter)
        if len(set(iterations)) > 1:
            first, rank = (
                iterations[0],
                next(rank for rank, number in enumerate(iterations) if number != iterations[0]),
            )
            raise CheckpointError(
                f"rank 0 is at iteration {first} and rank {rank} at {iterations[rank]}: "
                f"all must read the same checkpoint; is '{self.work_dir}' the same folder on all "
                "machines?"
            )

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Read back a checkpoint of a run of our own, all of which must fit.

        Raises:
            CheckpointError: it is no training state, or was trained as another model.
        """
        checkpoint = self._resumed or self._read_weights(filename, map_location)
        self._resumed, self._has_loaded = None, True
        wrapper = self.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and "optimizer" in checkpoint:
            if is_sharded(filename):
                checkpoint["optimizer"] = fill_optimizer(
                    Path(filename), checkpoint["optimizer"], wrapper
                )
            elif self.strategy is not None:
                checkpoint["optimizer"] = self.strategy.scatter_optimizer(
                    checkpoint["optimizer"], wrapper
                )
        return checkpoint

    def _read_weights(self, filename: str, map_location: Any, keep: bool = True) -> dict[str, Any]:
        """A training state; the model gets its weights unless ``keep`` is False."""
        if is_sharded(filename):
            checkpoint = read_sharded(Path(filename), weights=keep)
        else:
            checkpoint = read_training_state(filename, map_location)
        lacking = [key for key in ("state_dict", "message_hub", "meta") if key not in checkpoint]
        if lacking:
            raise CheckpointError(
                f"'{filename}' cannot be resumed: it has no {', '.join(lacking)}; it may be "
                "weights alone, which load_from starts from"
            )
        if not keep:
            del checkpoint["state_dict"]
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        self.base = checkpoint["meta"].get(BASE)
        if not keep:
            return checkpoint
        if self.base is not None:
            checkpoint["state_dict"] = dict(read_whole(filename).state_dict)
        load_state_dict(bare(self.model), checkpoint["state_dict"], filename)
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint; a file of its name is there whole, or as it was before.

        Raises:
            CheckpointError: the disk is full, or the folder cannot be written.
        """
        if self.strategy is not None:
            wanted = ("save_optimizer", "save_param_scheduler", "meta", "by_epoch")
            options = {name: kwargs[name] for name in wanted if name in kwargs}
            save_spread(self, Path(out_dir) / filename, **options)
            return
        if self.rank != 0:
            return
        if "://" in out_dir:  # not a local file
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with checkpoint_file(Path(out_dir) / filename) as partial:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue a run; raises a CheckpointError where the optimizer's state does not fit."""
        before, ends = self.seed, schedule_ends(self.param_schedulers)
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:
            if not str(error).startswith("loaded state dict"):
                raise
            raise CheckpointError(
                f"the optimizer of '{filename}' does not fit this config ({error}): start from "
                "its weights with load_from, without --resume"
            ) from error
        warn_of_old_schedule(ends, schedule_ends(self.param_schedulers))
        if isinstance(self.train_loop, RepeatableRandomness):
            self.train_loop.follow_seed(before, self.seed)

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """Build the loop; one without a type is one of ours too."""
        if isinstance(loop, dict) and "by_epoch" in loop and "type" not in loop:
            kind = EpochBasedTrainLoop if loop["by_epoch"] else IterBasedTrainLoop
            loop = {**loop, "type": kind}
            del loop["by_epoch"]
        return super().build_train_loop(loop)


def build_runner(config: Config) -> MMEngineRunner:
    """Build the runner that ``config`` describes.

    Args:
        config: a complete config with ``work_dir``.

    Raises:
        ConfigError: a part is unknown or has wrong settings, a setting would be ignored, or model
            and data name different text encoders.
    """
    share_text_encoder(config)
    name_learned_classes(config)
    check_settings(config)
    fitted = fit_schedule(config)
    with checked_builds():
        runner = Runner.from_cfg(RunConfig.of(config))
    if fitted is not None:  # the log is there now
        logger.info(fitted)
    return runner
