"""Programs of tools/ and demo/ as modules, to be called without starting a process for each."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

#: What a training or a detector would import while it is built.
_IMPORTED_LATE = (
    "llmdet.apis",
    "llmdet.engine",
    "mmdet.engine",
    "mmdet.visualization",
    "torch.utils.tensorboard",
    "transformers.models.bert.modeling_bert",
    "transformers.models.qwen2.modeling_qwen2",
)


def load_program(path: str | Path) -> ModuleType:
    """Import a program that lies outside any package; its ``main`` is not run."""
    spec = importlib.util.spec_from_file_location(f"program_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


def import_ahead() -> None:
    """Import what programs import late, so that processes forked from this one have it."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)


def run_forked(main: Callable[[], Any], folder: Path, shown: Path) -> int:
    """Call a program's ``main`` in a process of its own, which imports nothing anew.

    Args:
        main: may end by SystemExit.
        folder: in which it runs.
        shown: file that gets what it writes to the standard output and the standard error.

    Returns:
        The exit code, 1 where it raised; negative where a signal ended it.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.chdir(folder)
        file = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
