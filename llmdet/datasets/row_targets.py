"""What a row teaches: boxes that can be learnt from, phrases, and the caption of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmdet.datasets.captions import (
    remove_speculative_clauses,
    remove_speculative_clauses_upstream,
)
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.rows import Row
from llmdet.datasets.sample import Mask
from llmdet.prompts.conversation import DESCRIBE_IMAGE, Conversation, ask

#: The user turn of every image caption where `use_uniform_prompt` is on.
UNIFORM_PROMPT = f"<image>\n{DESCRIBE_IMAGE}"

BOX_INVERTED = "box with negative size"
BOX_OUTSIDE = "box outside the image"
BOX_TINY = "box under 1 pixel"
CAPTION_EMPTY = "caption empty after cleaning"
ROW_CAUSES = (BOX_INVERTED, BOX_OUTSIDE, BOX_TINY, CAPTION_EMPTY)


@dataclass(frozen=True)
class CaptionOptions:
    """Which text of a row supervises the description of the whole image.

    Attributes:
        uniform_prompt: ask every image the same (:data:`UNIFORM_PROMPT`), not what the row asks.
        clean: remove speculative clauses: True, False, or "upstream" for the original's way,
            which keeps a caption uncleaned where nothing would be left.
        short: answer with the sentences of the grounding caption that are no mere tags, where
            the row has tags; takes precedence over `clean`.
    """

    uniform_prompt: bool = True
    clean: bool | str = True
    short: bool = False


def conversations(row: Row, options: CaptionOptions, dropped: Ledger) -> tuple[Conversation, ...]:
    """What the language model learns to say of a row.

    Returns:
        One conversation; none where the row has none, or a caption with nothing certain to say.
        The options apply to captions: a question and its answer that speak of no region.
    """
    said = row.conversation
    if said is None or len(said.turns) != 2 or "region" in said.kinds:
        return () if said is None else (said,)
    prompt, answer = (turn.text for turn in said.turns)
    if options.short and row.tags is not None and row.caption is not None:
        answer = _short_caption(row.caption, row.tags)
    elif options.clean == "upstream":
        answer = remove_speculative_clauses_upstream(answer) or answer
    elif options.clean:
        answer = remove_speculative_clauses(answer)
    if not answer:
        dropped.note(CAPTION_EMPTY)
        return ()
    return (ask(UNIFORM_PROMPT if options.uniform_prompt else prompt, answer),)


def _short_caption(caption: str, tags: list[Any]) -> str:
    sentences = (sentence.strip() for sentence in caption.split("."))
    kept = [sentence for sentence in sentences if sentence and sentence not in tags]
    return ". ".join(kept) + "." if kept else ""


def phrase_targets(
    row: Row, size: tuple[int, int], dropped: Ledger
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Boxes and phrases of a row in grounding form.

    Args:
        row: the row.
        size: width and height of the image.
        dropped: counts boxes that are left out.

    Returns:
        Instances dict(bbox, bbox_label, ignore_flag) and mask where there is one, the label being
        the number of the phrase; number -> dict(phrase, tokens_positive) of those with a box.
    """
    instances: list[dict[str, Any]] = []
    phrases: dict[int, dict[str, Any]] = {}
    for number, phrase in enumerate(row.phrases):
        kept = [
            instance(box, number, mask)
            for box, mask in zip(phrase.boxes, phrase.masks, strict=True)
            if is_usable(box, size, dropped)
        ]
        instances += kept
        if kept:
            phrases[number] = {"phrase": phrase.words, "tokens_positive": phrase.spans}
    return instances, phrases


def label_targets(row: Row, size: tuple[int, int], dropped: Ledger) -> list[dict[str, Any]]:
    """Boxes of a row in detection form, as :func:`phrase_targets` gives them."""
    return [
        instance(item.box, item.label, item.mask)
        for item in row.boxes or ()
        if is_usable(item.box, size, dropped)
    ]


def pair_targets(row: Row, size: tuple[int, int], dropped: Ledger) -> list[dict[str, Any]]:
    """Boxes of a row in expression form, the label being the number of the pair."""
    return [
        instance(box, number)
        for number, pair in enumerate(row.pairs or ())
        for box in pair.boxes
        if is_usable(box, size, dropped)
    ]


def instance(box: list[float], label: int, mask: Mask | None = None) -> dict[str, Any]:
    """A box in mmdet's form."""
    made: dict[str, Any] = {"ignore_flag": 0, "bbox": box, "bbox_label": label}
    return made if mask is None else made | {"mask": mask}


def is_usable(box: list[float], size: tuple[int, int], dropped: Ledger) -> bool:
    """Whether a box x1, y1, x2, y2 can be learnt from in an image of (width, height); counted."""
    x1, y1, x2, y2 = box
    width, height = size
    if x2 < x1 or y2 < y1:
        dropped.note(BOX_INVERTED)
        return False
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        dropped.note(BOX_OUTSIDE)
        return False
    if x2 - x1 < 1 or y2 - y1 < 1:
        dropped.note(BOX_TINY)
        return False
    return True
