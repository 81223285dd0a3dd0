"""Files of systems whose weights cannot be loaded here: recognised, so that an error names them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """How the files of one system are recognised, and what to do with them."""

    name: str
    marks: tuple[str, ...]  # patterns; one of them in one key suffices
    licence: str  # of the weights

    def sentence(self, source: str) -> str:
        """The end of the attempt to load such a file."""
        return (
            f"'{source}' is a file of {self.name} ({self.licence}), a system that LLMDet has no "
            "model for: use it with its authors' program, and give LLMDet weights of a grounding "
            "detector"
        )


#: The first that fits wins. Files of Real-Model are missing because they load: their layout is
#: mmdet's Grounding DINO.
OTHERS: tuple[System, ...] = (
    System(
        "SpatialRGPT, the published successor of RegionGPT",
        (r"(^|\.)feature_refinement_module\.\d", r"(^|\.)(rgb|depth)_projector\."),
        "Apache-2.0",
    ),
)


def system_of(keys: Iterable[str]) -> System | None:
    """The system whose file has these keys, None where it is none of :data:`OTHERS`."""
    names = list(keys)
    for system in OTHERS:
        pattern = re.compile("|".join(system.marks))
        if any(pattern.search(name) for name in names):
            return system
    return None
