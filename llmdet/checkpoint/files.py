"""Reading and writing checkpoint files without running anything that is stored in them."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import CheckpointError, DataError
from llmdet.utils.files import read_json
from llmdet.utils.hub import hub_options

from .remote import fetch, is_address
from .sharded import STATE, check_shards, is_sharded, read_shards
from .sums import DAMAGE, check_sums

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

#: Where training programs keep the weights inside their checkpoint, in order of preference.
#: mmengine's EMAHook swaps before it saves: ``state_dict`` is the average then, and
#: ``ema_state_dict`` holds the raw weights, which only resuming needs.
_WRAPPERS = ("state_dict", "model", "ema", "module")
#: Entry of a safetensors header that holds ``meta`` as JSON.
_META = "llmdet"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: What looks like ``owner/name`` with one of these is a file that is missing.
_FILES = {".pth", ".pt", ".bin", ".py", ".json", ".yaml", ".yml"}


@dataclass(frozen=True)
class CheckpointFile:
    """The tensors of a checkpoint and, for a transformers folder, its configuration."""

    source: str  # what the user gave
    state_dict: StateDict
    config: dict[str, Any] | None = None  # parsed config.json
    meta: dict[str, Any] = field(default_factory=dict)  # mmengine's "meta", strings and numbers


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """Reads weights from a ``.pth``, a ``.safetensors``, their address in the web, a folder that
    several processes wrote, a transformers folder or a hub id.

    Pickled files are read with ``weights_only=True``: tensors and plain containers only.
    Wrappers (``state_dict``, ``model``, ``ema``) are opened and a leading ``module.`` is removed.

    Raises:
        CheckpointError: the file is missing, damaged, holds no tensors, or would run a program.
    """
    location = locate_checkpoint(path)
    if is_sharded(location):
        return _read_sharded(location, str(path))
    if location.is_dir():
        return _read_folder(location, str(path))
    if location.suffix == ".safetensors":
        return _with_config(location, str(path), _read_safetensors(location))
    return _read_pickle(location)


def read_part(path: str | Path, prefixes: tuple[str, ...]) -> StateDict:
    """The tensors of a file or folder whose names begin with one of ``prefixes``, without these.

    Of safetensors nothing else is read.

    Raises:
        CheckpointError: it cannot be read, or holds no such tensor.
    """
    from safetensors import SafetensorError, safe_open

    location = locate_checkpoint(path)
    shards = _shards_of(location) if location.is_dir() else [location]
    found: StateDict = {}
    for shard in shards:
        if shard.suffix != ".safetensors":
            found.update(read_checkpoint(shard).state_dict)
            continue
        try:
            with safe_open(shard, "pt") as opened:
                names = [name for name in opened.keys() if name.startswith(prefixes)]  # noqa: SIM118
                found.update({name: opened.get_tensor(name) for name in names})
        except SafetensorError as error:
            raise CheckpointError(f"{shard} is damaged or no safetensors file: {error}") from error
    part = {
        name.removeprefix(prefix): value
        for name, value in found.items()
        for prefix in prefixes
        if name.startswith(prefix)
    }
    if not part:
        raise CheckpointError(f"'{path}' holds no tensor that begins with {' or '.join(prefixes)}")
    return part


def locate_checkpoint(path: str | Path) -> Path:
    """Returns the file or folder that :func:`read_checkpoint` reads, fetched if it is not here.

    Raises:
        CheckpointError: there is none.
    """
    location = fetch(str(path)) if is_address(path) else Path(path).expanduser()
    if location.exists():
        return location
    if is_hub_id(path):
        return fetch_from_hub(str(path))
    raise CheckpointError(
        f"checkpoint '{path}' does not exist; give a .pth or .safetensors file, a folder with "
        "config.json and *.safetensors, or a hub id such as 'owner/name'"
    )


def is_hub_id(path: str | Path) -> bool:
    """Whether this reads as ``owner/name`` on the Hugging Face hub and is nothing here."""
    place = Path(path).expanduser()
    named = _HUB_ID.fullmatch(str(path)) and place.suffix not in _FILES
    return bool(named) and not place.exists()


def write_checkpoint(
    path: str | Path, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> None:
    """Writes tensors as ``.safetensors`` or, for any other suffix, as mmengine's ``.pth``.

    Args:
        path: file to write.
        state_dict: its tensors.
        meta: what the file says of itself; read back as :attr:`CheckpointFile.meta`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".safetensors":
        from safetensors.torch import save_file

        # safetensors refuses tensors that share memory, as tied embeddings do
        tensors = {key: value.detach().cpu().clone() for key, value in state_dict.items()}
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            str(target),
            metadata={"format": "pt", **({_META: json.dumps(meta)} if meta else {})},
        )
        return
    tensors = {key: value.detach().cpu() for key, value in state_dict.items()}
    torch.save({"meta": dict(meta or {}), "state_dict": tensors}, target)


def _read_sharded(folder: Path, source: str) -> CheckpointFile:
    check_shards(folder)
    meta = _read_meta(_load_pickle(folder / STATE))
    return CheckpointFile(source, read_shards(folder), meta=meta)


def _read_folder(folder: Path, source: str) -> CheckpointFile:
    shards = _shards_of(folder)
    if not shards:
        raise CheckpointError(
            f"folder '{source}' holds no *.safetensors and no pytorch_model*.bin; name the weight "
            "file itself if it is a .pth"
        )
    state_dict: StateDict = {}
    for shard in shards:
        safe = shard.suffix == ".safetensors"
        state_dict.update(_read_safetensors(shard) if safe else _read_pickle(shard).state_dict)
    return CheckpointFile(source, state_dict, _config_beside(folder))


def _config_beside(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    return _read_object(path) if path.is_file() else None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def _shards_of(folder: Path) -> list[Path]:
    """Files of weights: safetensors, or where there are none what transformers wrote before."""
    for index, pattern in (
        (folder / "model.safetensors.index.json", "*.safetensors"),
        (folder / "pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if index.is_file():
            names = _named_shards(index)
            missing = sorted(name for name in names if not (folder / name).is_file())
            if missing:
                raise CheckpointError(
                    f"{index} names {missing[0]} which is not there ({len(missing)} shards "
                    "missing); fetch the folder again"
                )
            return sorted(folder / name for name in names)
        if shards := sorted(folder.glob(pattern)):
            return shards
    return []


def _named_shards(index: Path) -> set[str]:
    """The files that an index names, which lie beside it."""
    places = _read_object(index).get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    outside = sorted(name for name in names if Path(name).name != name)
    if not names or outside:
        problem = f"names {outside[0]!r}, outside its folder" if outside else "names no file"
        raise CheckpointError(f"{index} {problem}; fetch the folder again")
    return names


def _with_config(weights: Path, source: str, state_dict: StateDict) -> CheckpointFile:
    from safetensors import safe_open

    config = _config_beside(weights.parent)
    with safe_open(str(weights), framework="pt") as header:
        text = (header.metadata() or {}).get(_META, "{}")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{weights}: its header {_META!r} is no JSON ({error})") from error
    meta = meta if isinstance(meta, dict) else {}
    return CheckpointFile(source, state_dict, config, meta)


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def fetch_from_hub(hub_id: str) -> Path:
    """The folder of a model on the Hugging Face hub, or of what was fetched of it before.

    Raises:
        CheckpointError: it is neither here nor reachable.
    """
    from huggingface_hub import snapshot_download

    logger.info("taking '%s' from the Hugging Face hub (or its local cache)", hub_id)
    try:
        return Path(
            snapshot_download(
                hub_id,
                allow_patterns=["*.json", "*.safetensors", "vocab.txt"],
                **hub_options(hub_id),
            )
        )
    except Exception as error:  # the hub client has no common base class for its failures
        raise CheckpointError(
            f"'{hub_id}' is neither a file here nor reachable on the hub "
            f"({type(error).__name__}); download it elsewhere and give the folder"
        ) from error


def _read_pickle(path: Path) -> CheckpointFile:
    content = _load_pickle(path)
    return CheckpointFile(str(path), _unwrap(content, path), meta=_read_meta(content))


def _read_meta(content: Any) -> dict[str, Any]:
    meta = content.get("meta", {}) if isinstance(content, dict) else {}
    return dict(meta) if isinstance(meta, dict) else {}


def _load_pickle(path: Path) -> Any:
    check_sums(path)
    try:
        with torch.serialization.safe_globals(_inert_log_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path)) from error
    except (*DAMAGE, LookupError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is damaged or no checkpoint: {reason}") from error


def _refusal(path: Path) -> str:
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        unsafe = []
    named = f" (it asks for {', '.join(sorted(unsafe)[:3])})" if unsafe else ""
    return (
        f"{path} is a pickle that would run a program on loading{named}; refused. If you trust "
        "its source, convert it once where that source's own program is installed: "
        "safetensors.torch.save_file(torch.load(PATH, weights_only=False)['state_dict'], OUT)"
    )


class _InertBuffer:
    """Stands in for mmengine's log buffers: read over, never used."""

    def __setstate__(self, state: Any) -> None:
        pass


def _inert_attribute(*_: Any) -> None:
    """Stands in for the ``getattr`` that pickled log buffers ask for: answers nothing."""


def _inert_log_globals() -> list[Any]:
    """What mmengine's own checkpoints hold beside tensors, replaced by harmless stand-ins."""
    import numpy as np
    from numpy._core.multiarray import _reconstruct, scalar

    arrays: list[Any] = [np.ndarray, np.dtype, *_numpy_dtypes(np)]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        arrays += [(_reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    return [
        (_InertBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_inert_attribute, "builtins.getattr"),
        *arrays,
    ]


def _numpy_dtypes(np: Any) -> list[Any]:
    names = ("Float16", "Float32", "Float64", "Int32", "Int64", "UInt8", "Bool")
    return [getattr(np.dtypes, f"{name}DType") for name in names]


def _unwrap(content: Any, path: Path) -> StateDict:
    tensors = content
    for key in _WRAPPERS:
        if isinstance(tensors, Mapping) and isinstance(tensors.get(key), Mapping):
            tensors = tensors[key]
            break
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    found = {key: value for key, value in tensors.items() if isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(
            f"{path} holds no tensors; its top-level entries are {list(tensors)[:5]}"
        )
    return {key.removeprefix("module."): value for key, value in found.items()}
