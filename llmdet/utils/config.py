"""Reading configs, with one sentence for each way in which they can be wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from llmdet.errors import ConfigError
from llmdet.utils import inert_files  # noqa: F401  YAML is data, a .py config a program
from llmdet.utils.config_text import lay_out
from llmdet.utils.suggest import did_you_mean
from llmdet.utils.variables import change_variable

logger = logging.getLogger(__name__)


class RunConfig(Config):
    """The config of a run, whose text costs no time.

    A run writes it beside its weights, into logs, TensorBoard and every checkpoint.
    """

    @classmethod
    def of(cls, config: Config) -> RunConfig:
        """A config with the same content, which both share."""
        made = cls.__new__(cls)
        made.__dict__.update(config.__dict__)
        return made

    @property
    def pretty_text(self) -> str:
        """The config as a program."""
        plain = Config.__copy__(self)
        plain.__dict__["_format_python_code"] = False
        return lay_out(Config.pretty_text.fget(plain))  # type: ignore[attr-defined]


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file with its bases.

    A base named ``mmdet::...`` marks its parts with mmdet's scope, where mmdet's own detectors
    would be found; under ``default_scope = 'llmdet'`` the marks are removed, so that names are
    looked up here first and in mmdet next, as everywhere else.

    Args:
        path: ``.py``, ``.yaml`` or ``.json`` file.
        options: dotted key -> value, merged last (``--cfg-options``).

    Raises:
        ConfigError: the file is missing or faulty, or an option names a place that is not there.
    """
    path = find_config(path)
    try:
        config = Config.fromfile(str(path))
    except Exception as error:  # a config is a program of the user's, which may raise anything
        raise ConfigError(f"Config '{path}' cannot be read: {_sentence(error)}") from error
    if config.get("default_scope") == "llmdet":
        _drop_scope(config._cfg_dict, "mmdet")
    if options:
        merge_options(config, options)
    return config


def find_config(path: str | Path) -> Path:
    """The config file that a path names: the file itself, or else one that the package ships.

    ``configs/finetune/raccoon.py`` and ``finetune/raccoon`` name the package's wherever the present
    folder has no such file; it is said which one was taken.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(path)
    if path.is_file():
        return path
    folder = shipped_configs()
    name = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    found = folder / name if name.suffix else folder / f"{name}.py"
    if path.is_absolute() or ".." in path.parts or not found.is_file():
        raise ConfigError(f"There is no config file '{path}'; {_nearest(path)}")
    logger.warning("'%s' is not in this folder; taking %s", path, found)
    return found


def shipped_configs() -> Path:
    """The folder of configs that came with the package: inside it, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def merge_options(config: Config, options: Mapping[str, Any]) -> None:
    """Merge dotted ``key=value`` options into ``config``, in place.

    A top-level text such as ``data_root`` takes along what the config built from it, and
    ``max_iters`` the length of the run.

    Raises:
        ConfigError: a key leads into a value that has no such entry.
    """
    for key, value in options.items():
        change_variable(config, key, value)
        if key == "max_iters" and "train_cfg.max_iters" not in options:
            _follow_max_iters(config, value)
        try:
            config.merge_from_dict({key: value})
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"--cfg-options {key}={value} does not fit the config: {_sentence(error)}"
            ) from error


def _follow_max_iters(config: Config, value: Any) -> None:
    """Let the variable ``max_iters`` of the schedules' files be the length of the run."""
    loop = config.get("train_cfg")
    if not isinstance(loop, Mapping) or "max_iters" not in loop:
        raise ConfigError(
            f"--cfg-options max_iters={value}: this config does not train by iterations; set "
            "train_cfg.max_epochs"
        )
    config.merge_from_dict({"train_cfg.max_iters": value})


def load_model_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config as :func:`load_config` does, and refuse one that describes no model."""
    config = load_config(path, options)
    if not isinstance(config.get("model"), Mapping):
        raise ConfigError(
            f"Config '{path}' describes no model: give one that has model=dict(...), such as "
            "configs/grounding_dino_swin_t.py"
        )
    return config


def set_work_dir(config: Config, path: str | Path, work_dir: str | None = None) -> None:
    """Settle where a run writes: the command line's folder, the config's, or one by its name.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / Path(path).stem)
    try:
        Path(config.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the work dir '{config.work_dir}' cannot be made ({error.strerror}): give another "
            "with --work-dir"
        ) from error


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the configs of the data sets inside wrappers such as ConcatDataset and BenchmarkSets.

    Args:
        dataset: config of a data set, such as ``config.test_dataloader.dataset``.
    """
    inner = [*dataset.get("datasets", ()), *dataset.get("sets", {}).values()]
    if "dataset" in dataset:
        inner.append(dataset["dataset"])
    if not inner:
        yield dataset
    for part in inner:
        yield from leaf_datasets(part)


def typed_parts(part: Any) -> Iterator[Any]:
    """Yield every mapping with a ``type`` in a part of a config, outer ones first."""
    if isinstance(part, Mapping):
        if "type" in part:
            yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for inner in part:
            yield from typed_parts(inner)


def type_name(part: Mapping[str, Any]) -> str:
    """The type of a part, a name or a class, without the scope that may stand before it."""
    kind = part["type"]
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]


def _drop_scope(part: Any, scope: str) -> None:
    if isinstance(part, dict):
        if part.get("_scope_") == scope:
            del part["_scope_"]
        for value in part.values():
            _drop_scope(value, scope)
    elif isinstance(part, (list, tuple)):
        for value in part:
            _drop_scope(value, scope)


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir() and folder.parts[:1] == ("configs",):
        folder = shipped_configs() / Path(*folder.parts[1:])
    names = [entry.name for entry in folder.glob(f"*{path.suffix}")] if folder.is_dir() else []
    return did_you_mean(path.name, names, otherwise=f"'{folder}' has none of a similar name")


def _sentence(error: Exception) -> str:
    # str(KeyError("x")) is "'x'": the bare argument reads better.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}"
