"""One line of a comparison, and how a recorded tensor's name selects part of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Outputs and intermediate tensors, float32 on the CPU.
ABSOLUTE = 1e-4
#: Logits of masks, which gather the noise of two models.
LOGITS = 1e-3
#: Losses and gradient norms; norms below NORM_FLOOR are rounding noise.
RELATIVE = 1e-4
NORM_FLOOR = 1e-5

_CALL = re.compile(r"#(\d+)")
_SLICE = re.compile(r"\[([^\]]*)\]$")


@dataclass(frozen=True)
class Row:
    """Difference between a recorded value and ours."""

    name: str
    max_abs: float
    max_rel: float
    passed: bool
    note: str = ""


def compare_tensor(name: str, expected: Tensor, ours: Tensor | None) -> Row:
    """Compare floats within :data:`ABSOLUTE`, everything else exactly; infinities must agree."""
    if ours is None:
        return Row(name, float("nan"), float("nan"), False, "not computed")
    if expected.shape != ours.shape:
        shapes = f"expected {tuple(expected.shape)}, got {tuple(ours.shape)}"
        return Row(name, float("nan"), float("nan"), False, shapes)
    ours = ours.detach()
    if not expected.is_floating_point():
        wrong = int((expected != ours).sum())
        return Row(name, float(wrong), 0.0, wrong == 0, "exact" if not wrong else "entries differ")
    finite = torch.isfinite(expected)
    same_infinities = torch.equal(expected[~finite], ours[~finite].to(expected.dtype))
    difference = (expected - ours)[finite].abs()
    max_abs = float(difference.max()) if difference.numel() else 0.0
    scale = float(expected[finite].abs().max()) if difference.numel() else 1.0
    passed = same_infinities and max_abs <= ABSOLUTE
    return Row(name, max_abs, max_abs / max(scale, 1e-12), passed)


def compare_mean(name: str, expected: Tensor, ours: Tensor | None, limit: float) -> Row:
    """Compare what both programs rounded to 16 bits: the mean difference, beside the mean value.

    Args:
        limit: how far such rounding moved the original from itself.
    """
    row = compare_tensor(name, expected, ours)
    if ours is None or expected.shape != ours.shape or not expected.numel():
        return row
    difference = (expected - ours.detach()).abs()
    relative = float(difference.mean() / expected.abs().mean())
    return Row(name, float(difference.max()), relative, relative <= limit, "mean difference")


def compare_masks(name: str, expected: Tensor, ours: Tensor | None) -> Row:
    """Compare logits of masks within :data:`LOGITS`, and their signs where they are larger."""
    row = compare_tensor(name, expected, ours)
    if ours is None or expected.shape != ours.shape:
        return row
    clear = expected.abs() > LOGITS
    same = torch.equal(expected[clear] > 0, ours.detach()[clear] > 0)
    return Row(name, row.max_abs, row.max_rel, same and row.max_abs <= LOGITS)


def compare_number(
    name: str, expected: float | None, ours: float | None, within: float = RELATIVE
) -> Row:
    """Compare losses and norms within a part of their value; None means there is no such value."""
    if expected is None or ours is None:
        note = f"expected {expected}, got {ours}"
        same = (expected or 0.0) == (ours or 0.0)
        return Row(name, 0.0 if same else float("nan"), 0.0, same, "" if same else note)
    difference = abs(expected - ours)
    relative = difference / max(abs(expected), NORM_FLOOR)
    return Row(name, difference, relative, relative <= within)


def compare_exact(name: str, expected: object, ours: object) -> Row:
    """Compare anything by equality."""
    same = expected == ours
    note = "" if same else f"expected {str(expected)[:60]!r}, got {str(ours)[:60]!r}"
    return Row(name, 0.0 if same else float("nan"), 0.0, same, note or "exact")


def compare_recorded(
    expected: dict[str, Tensor],
    find: Callable[[str, int], Tensor | None],
    compare: Callable[[str, Tensor, Tensor | None], Row] = compare_tensor,
) -> Iterable[Row]:
    """Compare every recorded tensor.

    Args:
        expected: recorded tensors. "#k" anywhere in a name means the k-th call, "[...]" at its
            end which part was kept.
        find: gives our tensor of a name without these, and the number of the call.
        compare: what to hold each pair to.
    """
    for name, tensor in expected.items():
        call = _CALL.search(name)
        base, part = _CALL.sub("", name), None
        if match := _SLICE.search(base):
            base, part = base[: match.start()], match.group(1)
        ours = find(base, int(call.group(1)) if call else 0)
        if ours is not None and part is not None:
            ours = ours[_index(part, tensor.shape[-1])]
        yield compare(name, tensor, ours)


def _index(text: str, last: int) -> tuple[Any, ...]:
    """Read "..., :n_text" or ":, ::4"; a word stands for the recorded last dimension."""
    parts: list[Any] = []
    for item in text.split(","):
        item = item.strip()
        if item == "...":
            parts.append(...)
        elif ":" in item:
            bounds = [_bound(b, last) for b in item.split(":")]
            parts.append(slice(*bounds))
        else:
            parts.append(int(item))
    return tuple(parts)


def _bound(text: str, last: int) -> int | None:
    text = text.strip()
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else last
