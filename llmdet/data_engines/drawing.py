"""What engines draw."""

from __future__ import annotations

import random


def generator_of(seed: int, *names: object) -> random.Random:
    """What is drawn for something, whatever stands before it in the file."""
    return random.Random("/".join(map(str, (seed, *names))))
