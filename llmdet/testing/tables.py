"""Tables of benchmarks in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from statistics import mean, stdev


def over_seeds(values: Iterable[float], scale: float = 1, digits: int = 1) -> str:
    """The mean of ``scale`` times what the seeds came to, ± its standard deviation.

    NaN is nothing; of nothing the text is empty, and of one value it has no deviation.
    """
    known = [scale * value for value in values if not isnan(value)]
    if not known:
        return ""
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a table, an empty one before it.

    Args:
        title: above the names of rows.
        columns: their names.
        rows: name -> a cell for each column.
    """
    lines = ["", f"| {title} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
