"""A detector as a folder that needs nothing else: settings, weights, text encoder, tokenizers.

The settings are JSON and describe parts by their registered names; a folder of a stranger can
neither run a program nor reach for another file. Folders carry the version of their format, and
:data:`UPGRADES` brings those of older versions up to date.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from llmdet.apis.building import test_steps
from llmdet.apis.class_names import config_class_names
from llmdet.checkpoint.files import fetch_from_hub, is_hub_id, write_checkpoint
from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import MODELS, TASK_UTILS
from llmdet.utils.config import load_config, load_model_config, shipped_configs, type_name
from llmdet.utils.files import read_json

FORMAT, VERSION = "llmdet.detector", 2
#: Version -> what turns settings of that version into those of the next. Weights of version 2 may
#: hold learned classes; folders without any are written as version 1, which older programs read.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda settings: settings,
}

SETTINGS, WEIGHTS = "detector.json", "model.safetensors"
#: What a config that is derived from transformers' says its differences from.
_BASE = "_base_/models/grounding_dino_swin_t.py"
_TEXT_ENCODER, _LANGUAGE_MODEL = "text_encoder", "language_model"
_DETECTORS = ("GroundingDINO", "LLMDet")
#: Steps that prepare an image and read nothing else.
_STEPS = (
    "FixScaleResize",
    "LoadImageFromFile",
    "PackDetInputs",
    "PackGroundingInputs",
    "Pad",
    "Resize",
)
#: How a tuple is written, of which JSON has none.
_TUPLE = "()"


def find_config(config: str | Path | Config) -> tuple[Config, Path | None]:
    """A config of one's own, and the weights beside it where it came with some.

    Args:
        config: path of a config, or a loaded one, which is copied; or a folder that :func:`save`
            wrote or that holds transformers' MM-Grounding-DINO, or the hub id of one.

    Raises:
        ConfigError: the config cannot be read or describes no model, or the folder is another.
        CheckpointError: as :func:`read` and :func:`read_transformers`.
    """
    if isinstance(config, Config):
        return copy.deepcopy(config), None
    path = Path(fetch_from_hub(str(config)) if is_hub_id(config) else config).expanduser()
    if not path.is_dir():
        return load_model_config(config), None
    if (path / SETTINGS).is_file():
        return read(path)
    if (path / "config.json").is_file():
        return read_transformers(path)
    raise ConfigError(
        f"The folder '{config}' has neither {SETTINGS}, which save_pretrained writes, nor the "
        "config.json of a transformers model. Give the config of its model, and the folder as "
        "weights."
    )


def read_transformers(folder: Path) -> tuple[Config, Path]:
    """A config derived from a folder of transformers' ``MMGroundingDinoForObjectDetection``.

    Raises:
        CheckpointError: it is another model's, or has a setting that our detector does not have.
    """
    from transformers import AutoImageProcessor

    from llmdet.checkpoint.transformers_model import model_changes, read_transformers_config

    changes = model_changes(read_transformers_config(folder))
    try:
        images = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        scale = (images.size["shortest_edge"], images.size["longest_edge"])
        mean, std = (
            [255 * value for value in part] for part in (images.image_mean, images.image_std)
        )
    except Exception as error:  # its checks raise what they like
        raise CheckpointError(
            f"'{folder}' has no image processor that scales by shortest_edge and longest_edge and "
            f"normalises: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    config = Config({"default_scope": "llmdet"})
    config.model = load_config(shipped_configs() / _BASE).model
    config.merge_from_dict({"model": changes})
    config.model.language_model.name = str(folder)
    config.model.data_preprocessor.update(mean=mean, std=std)
    pipeline = [
        {"type": "LoadImageFromFile", "imdecode_backend": "pillow"},
        {"type": "FixScaleResize", "scale": scale, "keep_ratio": True, "backend": "pillow"},
        {"type": "PackGroundingInputs"},
    ]
    config.test_dataloader = {"dataset": {"type": "CocoDataset", "pipeline": pipeline}}
    return config, folder


def save(model: Any, config: Config, folder: str | Path) -> None:
    """Write a detector: its model, built, and the config of model and pipeline.

    Raises:
        ConfigError: the model or its pipeline is of a kind that a folder cannot describe.
        DataError: the folder cannot be written.
    """
    target = Path(folder).expanduser()
    captions = getattr(model, "lmm", None) is not None
    content = {
        "format": FORMAT,
        "version": VERSION if model.learned_classes.names else 1,
        "model": _portable_model(config.model.to_dict(), captions),
        "pipeline": [_portable_step(step) for step in test_steps(config)],
        "classes": _class_names(config),
    }
    settings = _encoded(content, SETTINGS)
    _check(_decoded(settings), str(target), ConfigError)
    try:
        target.mkdir(parents=True, exist_ok=True)
        encoder = model.language_model.language_backbone["body"].model
        _write_part(target / _TEXT_ENCODER, encoder.config, model.language_model.tokenizer)
        if captions:
            lmm = model.lmm
            tokenizer = load_tokenizer(lmm.tokenizer_name, role="lmm.tokenizer")
            _write_part(target / _LANGUAGE_MODEL, lmm.causal_lm.config, tokenizer)
        write_checkpoint(target / WEIGHTS, model.state_dict())
        (target / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"The folder {target} cannot be written: {error}.") from error


def read(folder: str | Path) -> tuple[Config, Path]:
    """The config of a saved detector, and where its weights are.

    Raises:
        CheckpointError: the folder is incomplete, of a newer version, or asks for what no saved
            detector has.
    """
    root = Path(folder).expanduser()
    try:
        settings = read_json(root / SETTINGS)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    content = _decoded(_up_to_date(settings, root))
    _check(content, str(root), CheckpointError)
    model, weights = dict(content["model"]), root / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"The folder '{root}' has no {WEIGHTS}; save or fetch it again.")
    model["language_model"]["name"] = str(root / _TEXT_ENCODER)
    if model.get("lmm") is not None:
        place = str(root / _LANGUAGE_MODEL)
        model["lmm"] |= {"model": place, "tokenizer": place}
    dataset: dict[str, Any] = {"type": "CocoDataset", "pipeline": content["pipeline"]}
    if content.get("classes"):
        dataset["metainfo"] = {"classes": tuple(content["classes"])}
    loader = {"dataset": dataset}
    return Config({"default_scope": "llmdet", "model": model, "test_dataloader": loader}), weights


def _up_to_date(settings: Any, root: Path) -> dict[str, Any]:
    version = settings.get("version") if isinstance(settings, dict) else None
    if version is None or settings.get("format") != FORMAT or type(version) is not int:
        raise CheckpointError(f"{root / SETTINGS} describes no saved detector.")
    if version > VERSION:
        raise CheckpointError(
            f"'{root}' was saved by a newer version of this package (format {version}, known here "
            f"are those up to {VERSION}): update llmdet."
        )
    for number in range(version, VERSION):
        if number not in UPGRADES:
            raise CheckpointError(f"{root / SETTINGS} has the unknown version {version}.")
        settings = UPGRADES[number](settings)
    return settings


def _portable_model(model: dict[str, Any], captions: bool) -> dict[str, Any]:
    """Settings of a model whose weights are all in the folder."""
    model = _without_initialisation(model)
    model.pop("learned_classes", None)  # the weights name them
    encoder = dict(model["language_model"])
    model["language_model"] = {**encoder, "name": _TEXT_ENCODER, "pretrained": False}
    model.pop("connector", None)
    if not captions:
        for part in ("lmm", "image_captioner", "region_captioner"):
            model.pop(part, None)
        return model
    place = {"model": _LANGUAGE_MODEL, "tokenizer": _LANGUAGE_MODEL, "pretrained": False}
    model["lmm"] = {**model["lmm"], **place}
    return model


def _without_initialisation(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {
            key: _without_initialisation(value) for key, value in part.items() if key != "init_cfg"
        }
    if isinstance(part, (list, tuple)):
        return type(part)(map(_without_initialisation, part))
    return part


def _portable_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of the pipeline by its bare name, reading files of this machine only."""
    plain = {key: value for key, value in step.items() if key != "backend_args"}
    return {**plain, "type": type_name(step)}


def _class_names(config: Config) -> list[str] | None:
    try:
        return list(config_class_names(config))
    except (ConfigError, DataError):
        return None


def _write_part(folder: Path, config: Any, tokenizer: Any) -> None:
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# What settings may say.


def _encoded(part: Any, where: str) -> Any:
    """The same as JSON holds it."""
    if isinstance(part, Mapping):
        return {str(key): _encoded(value, f"{where}.{key}") for key, value in part.items()}
    if isinstance(part, tuple):
        return {_TUPLE: [_encoded(value, where) for value in part]}
    if isinstance(part, list):
        return [_encoded(value, where) for value in part]
    if part is None or isinstance(part, (str, bool, int, float)):
        return part
    raise ConfigError(f"{where} is a {type(part).__name__}, which no folder can hold as data.")


def _decoded(part: Any) -> Any:
    if isinstance(part, dict):
        if set(part) == {_TUPLE} and isinstance(part[_TUPLE], list):
            return tuple(map(_decoded, part[_TUPLE]))
        return {key: _decoded(value) for key, value in part.items()}
    return list(map(_decoded, part)) if isinstance(part, list) else part


def _check(content: Mapping[str, Any], where: str, error: type[Exception]) -> None:
    """Raise an error if settings name anything but parts of detectors and steps for images."""
    model, steps = content.get("model"), content.get("pipeline")
    if not isinstance(model, dict) or not isinstance(steps, list):
        raise error(f"{where}/{SETTINGS} lacks its model or its pipeline.")
    encoder = model.get("language_model")
    if model.get("type") not in _DETECTORS or not isinstance(encoder, dict):
        raise error(
            f"{where}: a detector with a text encoder can be saved ({', '.join(_DETECTORS)}), not "
            f"type={model.get('type')!r}."
        )
    if not isinstance(model.get("lmm") or {}, dict):
        raise error(f"{where}: lmm is {model['lmm']!r}, no language model.")
    kinds = [step.get("type") if isinstance(step, dict) else [step] for step in steps]
    if unknown := [kind for kind in kinds if kind not in _STEPS]:
        raise error(f"{where}: the pipeline's step {unknown[0]!r} cannot be saved or loaded.")
    if "LoadImageFromFile" not in kinds:
        raise error(f"{where}: the pipeline has no LoadImageFromFile.")
    names = set(_registered(MODELS)) | set(_registered(TASK_UTILS)) | set(_STEPS)
    for place, key, value in _texts({"model": model, "pipeline": steps}):
        if key == "type" and value not in names:
            raise error(f"{where}: {place}={value!r} is no part that we know.")
        if any(character in value for character in "/\\~\0") or key == "_scope_":
            raise error(
                f"{where}: {place}={value!r} leads out of the folder, which a saved detector never "
                "needs; the folder is not used."
            )


def _registered(registry: Registry | None) -> Iterator[str]:
    """The names of a registry's parts and of those that it inherits."""
    while registry is not None:
        registry.import_from_location()
        yield from registry.module_dict
        registry = registry.parent


def _texts(part: Any, place: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Place, key and value of every text in settings."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _texts(value, f"{place}.{name}".lstrip("."), name)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _texts(value, place, key)
    elif isinstance(part, str):
        yield place, key, part
