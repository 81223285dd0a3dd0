"""Checkpoints of runs that learn classes hold these alone: the rest is where the run took it from.

``meta["base"]`` names that file and the hash of its bytes; loading puts both together again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from llmdet.errors import CheckpointError

ENTRY = "base"
#: Parameters that are kept beside a base.
_KEPT = "learned_classes."


def base_record(path: str | Path) -> dict[str, str]:
    """What a checkpoint says of the weights that its run began with.

    Args:
        path: of a file, or the folder, address or hub id of a checkpoint, whose bytes are not
            compared later.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        return {"file": str(place.resolve() if place.exists() else path), "sha256": ""}
    return {"file": str(place.resolve()), "sha256": _digest(place)}


def learns_classes_alone(model: nn.Module) -> bool:
    """Whether nothing of a detector trains but its learned classes."""
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return bool(trained) and all(name.startswith(_KEPT) for name in trained)


def leave_out_base(checkpoint: dict[str, Any], record: Mapping[str, str] | None) -> None:
    """Take out of a training checkpoint, in place, all that its run did not learn.

    Args:
        checkpoint: of mmengine's runner; averaged weights (EMA) are kept whole.
        record: of :func:`base_record`; None: there is no base.
    """
    if record is None or "ema_state_dict" in checkpoint:
        return
    weights = checkpoint["state_dict"]
    for key in [key for key in weights if not key.startswith(_KEPT)]:
        del weights[key]
    checkpoint["meta"][ENTRY] = dict(record)


def find_base(record: Mapping[str, str], checkpoint: str | Path) -> str:
    """Where the base of a checkpoint is: where it was, or beside the checkpoint.

    Raises:
        CheckpointError: it is nowhere, or another file has its name.
    """
    recorded = str(record["file"])
    beside = Path(checkpoint).expanduser().parent / Path(recorded).name
    for place in (Path(recorded), beside):
        if place.exists():
            if record["sha256"] and place.is_file() and _digest(place) != record["sha256"]:
                raise CheckpointError(
                    f"'{checkpoint}' holds learned classes alone, of the detector in '{recorded}', "
                    f"and '{place}' holds another today: put the one that it was trained on there."
                )
            return str(place)
    if not record["sha256"] and not Path(recorded).is_absolute():
        return recorded  # a hub id or an address
    raise CheckpointError(
        f"'{checkpoint}' holds learned classes alone, of the detector in '{recorded}', which is "
        f"not there: put it there or into the folder of the checkpoint."
    )


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
