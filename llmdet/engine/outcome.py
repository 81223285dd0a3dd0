"""What a run says at its end: where its weights are, commands that use them, how it was tested."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from llmdet.evaluation.predictions import prompts_in_words
from llmdet.models.detectors.settings import TestSettings
from llmdet.models.wrappers import bare

logger = logging.getLogger(__name__)


def report_prompts(runner: Any) -> None:
    """Log what the prompts of a test held, on which its numbers depend."""
    protocol = getattr(bare(runner.model), "test_cfg", None)
    if isinstance(protocol, TestSettings):
        logger.info("tested with %s", prompts_in_words(protocol.chunked_size))


def report_result(runner: Any) -> None:
    """Log how the weights of a finished training are looked at, measured and compared."""
    hub = runner.message_hub
    last, best = (hub.runtime_info.get(name) for name in ("last_ckpt", "best_ckpt"))
    if not is_main_process() or last is None or not Path(last).exists():
        return
    kept = f"trained {runner.iter:,} iterations; weights: {_shown(last)}"
    if best is not None and not Path(best).exists():
        best = None  # of a run whose folder was elsewhere
    if best is not None:
        kept += f"; best of all validations: {_shown(best)} ({hub.runtime_info['best_score']:.4f})"
    commands = usage(runner, best or last)
    width = max(map(len, commands))
    lines = [f"  {what + ':':<{width + 1}} {command}" for what, command in commands.items()]
    logger.info("\n".join([kept, *lines]))


def usage(runner: Any, weights: str) -> dict[str, str]:
    """Commands for the weights of a run, as they are typed in the present folder.

    Args:
        runner: of the training; its work dir has the complete config.
        weights: a checkpoint of it.
    """
    config = Path(runner.work_dir, Path(runner.cfg.filename or f"{runner.timestamp}.py").name)
    names = [_shown(config), _shown(weights)]
    # In a checkout the scripts that its documentation names, elsewhere the installed command.
    scripts = Path("image_demo.py").is_file() and Path("dist_test.sh").is_file()
    predict = "python image_demo.py" if scripts else "llmdet predict"
    measure = (
        f"bash dist_test.sh {' '.join(names)} 1" if scripts else f"llmdet test {' '.join(names)}"
    )
    commands = {
        "look at it": f"{predict} {_image_of(runner)} {names[0]} --weights {names[1]}",
        "measure it": measure,
        "see curves": f"tensorboard --logdir {_shown(runner.work_dir)}",
    }
    if runner.cfg.get("test_dataloader") is None:
        del commands["measure it"]
    return commands


def _image_of(runner: Any) -> str:
    """An image that the model was not trained on, where the run has one at hand."""
    loader = getattr(runner._val_loop, "dataloader", None)  # without building one
    try:
        path = loader.dataset.get_data_info(0)["img_path"]  # type: ignore[union-attr]
    except (AttributeError, KeyError, IndexError):
        return "IMAGE"
    return _shown(path) if Path(path).is_file() else "IMAGE"


def _shown(path: str | Path) -> str:
    """A path as one types it here: relative if it lies below, quoted where a shell needs it."""
    if "://" in str(path):
        return shlex.quote(str(path))
    relative = os.path.relpath(path)
    return shlex.quote(os.path.abspath(path) if relative.startswith("..") else relative)
