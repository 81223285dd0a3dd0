"""How far a training has come, on one line that can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

#: What a loss is called beside what it measures: its decoder layer, the encoder, denoising.
_PLACE_OF_LOSS = re.compile(r"^(d\d+\.|enc_|dn_)*loss_")
_LANGUAGE = "lmm_"  # begins the names of what a language model loses
_ELSEWHERE = ("lr", "base_lr", "time", "data_time", "iter", "epoch", "memory", "images_per_second")


def training_line(head: str, values: Mapping[str, Any], eta_seconds: float | None) -> str:
    """What an iteration is reported as.

    Args:
        head: which iteration it is.
        values: scalars of the log, smoothed: losses, rates, times in seconds, memory in MB.
        eta_seconds: how long the rest will take, None where that is not known.
    """
    parts = [head]
    if eta_seconds is not None:
        parts.append(f"eta: {timedelta(seconds=int(eta_seconds))}")
    if values.get("time"):
        images = values.get("images_per_second")
        speed = f"{1 / values['time']:.3g} steps/s" if images is None else f"{images:.3g} images/s"
        waiting = 100 * values.get("data_time", 0.0) / values["time"]
        parts.append(f"{speed} ({waiting:.0f}% waiting for data)")
    if "loss" in values:
        parts.append(f"loss: {values['loss']:.4f}")
    parts += [f"{task}: {value:.4f}" for task, value in losses_by_task(values).items()]
    parts += [
        f"{name}: {value:.4f}"
        for name, value in values.items()
        if name not in (*_ELSEWHERE, "loss") and not _PLACE_OF_LOSS.match(name)
        if isinstance(value, float)
    ]
    if "lr" in values:
        parts.append(f"lr: {values['lr']:.2e}")
    if "memory" in values:
        parts.append(f"memory: {values['memory']} MB")
    return "  ".join(parts)


def losses_by_task(values: Mapping[str, Any]) -> dict[str, float]:
    """Losses of the detector and of the language model; none where one of the two is all."""
    tasks = {"detection": 0.0, "language": 0.0}
    found = set()
    for name, value in loss_families(values).items():
        task = "language" if name.startswith(_LANGUAGE) else "detection"
        tasks[task] += value
        found.add(task)
    return tasks if len(found) == len(tasks) else {}


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


def training_note(values: Mapping[str, Any]) -> str:
    """Loss and speed in a few characters, for a line that has little room."""
    parts = []
    for name, form in (("loss", "loss {:.3f}"), ("images_per_second", "{:.3g} images/s")):
        value = values.get(name, values.get(f"train/{name}"))
        if value is not None:
            parts.append(form.format(value))
    return "  ".join(parts)
