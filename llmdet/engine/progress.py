"""How far a training has come, on one line that can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

#: What a loss is called beside what it measures: its decoder layer, the encoder, denoising.
_PLACE_OF_LOSS = re.compile(r"^(d\d+\.|enc_|dn_)*loss_")
_ELSEWHERE = ("lr", "base_lr", "time", "data_time", "iter", "epoch", "memory", "images_per_second")


def training_line(head: str, values: Mapping[str, Any], eta_seconds: float | None) -> str:
    """What an iteration is reported as.

    Args:
        head: which iteration it is.
        values: scalars of the log, smoothed: losses, rates, times in seconds, memory in MB.
        eta_seconds: how long the rest will take, None where that is not known.
    """
    parts = [head]
    if "lr" in values:
        parts.append(f"lr: {values['lr']:.4e}")
    if eta_seconds is not None:
        parts.append(f"eta: {timedelta(seconds=int(eta_seconds))}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.4g} images/s")
    if values.get("time"):
        waiting = 100 * values.get("data_time", 0.0) / values["time"]
        parts.append(f"{values['time']:.3f} s/step ({waiting:.0f}% for data)")
    if "memory" in values:
        parts.append(f"memory: {values['memory']} MB")
    families = loss_families(values)
    if "loss" in values:
        listed = ", ".join(f"{name} {value:.4f}" for name, value in families.items())
        parts.append(f"loss: {values['loss']:.4f}" + (f" ({listed})" if listed else ""))
    parts += [
        f"{name}: {value:.4f}"
        for name, value in values.items()
        if name not in (*_ELSEWHERE, "loss") and not _PLACE_OF_LOSS.match(name)
        if isinstance(value, float)
    ]
    return "  ".join(parts)


def loss_families(values: Mapping[str, Any]) -> dict[str, float]:
    """Losses by what they measure, each summed over layers, encoder and denoising."""
    families: dict[str, float] = {}
    for name, value in values.items():
        place = _PLACE_OF_LOSS.match(name)
        if place:
            family = name[place.end() :]
            families[family] = families.get(family, 0.0) + value
    return families


def images_of(data_batch: Any) -> int:
    """Images of a batch, 0 where it does not say."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, Mapping) else None
    return len(samples or ())
