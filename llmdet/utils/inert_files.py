"""Files that can hold programs, read as data alone: pickles and YAML.

mmengine chooses a reader by a file's suffix, for configs, annotations and proposals alike, and its
readers of these two execute what a file asks for. Importing this module puts readers in their place
that refuse it.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.fileio.handlers.registry_utils import file_handlers

from llmdet.errors import DataError

_HARMLESS = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.set",
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
    }
)


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and numpy arrays; anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module.replace('numpy._core', 'numpy.core')}.{name}" in _HARMLESS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds an object of {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain containers.

    Raises:
        DataError: the file is missing, damaged, or holds objects, which could run code.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path} as plain data: {error}") from error


class _InertPickleHandler(PickleHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        try:
            return _PlainUnpickler(file, **kwargs).load()
        except pickle.UnpicklingError as error:
            raise DataError(
                f"a pickled file is not read, as it would run a program ({error}); use JSON"
            ) from error


class _InertYamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Data, and the tuples that configs are written with."""


_InertYamlLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _InertYamlHandler(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return yaml.load(file, Loader=_InertYamlLoader)


for _formats, _handler in (
    (("pickle", "pkl"), _InertPickleHandler()),
    (("yaml", "yml"), _InertYamlHandler()),
):
    for _format in _formats:
        file_handlers[_format] = _handler
