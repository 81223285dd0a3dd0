"""Rows of unlike lengths, in groups that are padded less."""

from __future__ import annotations

from collections.abc import Sequence

#: What reading one more group costs, in tokens: found by trial with models of 0.5 M parameters on a
#: CPU; the larger the model, the more tokens a group may save at that price.
CALL = 96


def group_rows(lengths: Sequence[int], call: int = CALL) -> list[list[int]]:
    """Split rows into groups that cost least to read, each padded to its longest row.

    Args:
        lengths: tokens of each of R rows.
        call: what a group costs beside its tokens.

    Returns:
        Numbers of rows, group after group, shorter rows first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    costs, starts = [0], []
    for end, row in enumerate(order, 1):
        # A row ends its group: the group then begins where all before it costs least.
        cost, start = min(
            (costs[start] + (end - start) * lengths[row] + call, start) for start in range(end)
        )
        costs.append(cost)
        starts.append(start)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.insert(0, order[starts[end - 1] : end])
        end = starts[end - 1]
    return groups
