"""Expressions that describe what a box holds, as annotation files write them."""

from __future__ import annotations

import re

_SIDES = {"left": "right", "right": "left"}
# "leftmost" and "right-hand" name a side as well; "bright" and "leftover" do not.
_SIDE = re.compile(r"\b(left|right)(?=(?:most|hand|ward|wards)?\b)")


def clean_expression(text: str) -> str:
    """An expression as it stands in a prompt: lower case, single blanks, no dot at its ends.

    Source: Real-LOD (Huang et al. 2025), preparation of the text of a training image.
    """
    return " ".join(text.split()).strip(" .").lower()


def mirror_expression(text: str) -> str:
    """What a cleaned expression says of the mirrored picture: left and right change places."""
    return _SIDE.sub(lambda match: _SIDES[match.group(1)], text)
