"""Programs of tools/ and demo/ as modules, to be called without starting a process for each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_program(path: str | Path) -> ModuleType:
    """Import a program that lies outside any package; its ``main`` is not run."""
    spec = importlib.util.spec_from_file_location(f"program_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module
