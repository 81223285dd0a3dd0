"""What the GranD engine asks, and which answers it takes; the wordings are ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from llmdet.data_engines.object_words import MARKS, MarkedText, list_objects, read_marked
from llmdet.data_engines.questions import RejectedAnswerError

TAGS = (
    "List the kinds of objects and stuff that can be seen in this picture: one noun or short noun "
    "phrase for each kind, in the singular, separated by commas. Answer with the list alone."
)
LANDMARK = (
    "What kind of place does this picture show? Answer with one of indoor, outdoor, "
    "transportation, sports, then a colon and the kind of place in one to three words, such as: "
    "indoor: kitchen"
)
ATTRIBUTES = (
    "This is a part of a larger picture. Describe the {label} at its centre by what can be seen of "
    "it, such as colour, material, state or clothing, in a noun phrase of at most twelve words: a "
    "white ceramic teapot with a broken handle. Answer with the phrase alone."
)
SHORT_CAPTIONS = (
    "Describe this picture in one sentence.",
    "What happens in this picture? Answer in one sentence that names who or what takes part.",
    "Say in one sentence where this picture was taken and what stands in front.",
    "Give this picture a caption of one sentence that names its main objects.",
    "In one sentence: which objects does this picture show, and how are they arranged?",
)
_TRUTH = " State only what can be seen."
_MARKED = (
    "Words that stand for an object are in square brackets, and its number behind them in round "
    "ones: [the man](0) holds [a red cup](2)."
)
RELATIONS = (
    "These objects of the picture have numbers:\n{objects}\n"
    "How do they relate to one another: who does what to what, what stands on, beside or in front "
    "of what? Write up to {count} relations that can be seen, one short sentence with at least two "
    "objects on each line. " + _MARKED
)
DENSE = (
    "This is known of a picture.\n{graph}\n"
    "Describe the picture in one paragraph of three to five sentences, from front to back. Name "
    "its objects, with how they look and relate. Name nothing that is not listed; no numbers, no "
    "lists."
)
REWRITE = (
    "This describes a picture: {caption}\n"
    "The following is not in the picture: {phrases}. Write the description anew without it, and "
    "change nothing else. Answer with the description alone."
)
CONTEXT = (
    "This describes a picture: {caption}\n"
    "Write five to seven sentences of what goes beyond it and helps to understand it: what such a "
    "scene is about, its history or customs, what to be careful of, what may come next. Do not "
    "repeat the description."
)
AFFORDANCES = (
    "These objects of a picture have numbers:\n{objects}\n"
    "{caption}\n"
    "For up to {count} of them say in one short sentence on a line of its own what people can do "
    "with it in this scene. " + _MARKED
)
PLACES = ("indoor", "outdoor", "transportation", "sports")
#: Least depth of a layer that is farther than the one before (GLaMM's engine).
LAYERS = (
    (0.1, "immediate foreground"),
    (0.6, "foreground"),
    (0.85, "middle ground"),
    (2.0, "background"),
)
_LANDMARK = re.compile(rf"\b({'|'.join(PLACES)})\b\W*(?:scene\W*)?([a-z][a-z /-]*)", re.IGNORECASE)
_MOST_TAG_WORDS = 3


def short_caption(number: int) -> str:
    """The question for one of several short captions."""
    return SHORT_CAPTIONS[number % len(SHORT_CAPTIONS)] + _TRUTH


def accepted_tags(answer: str, most: int) -> list[str]:
    """Names out of a list with commas, or of one a line; each once.

    Raises:
        RejectedAnswerError: there is none.
    """
    parts = re.split(r"[,;\n]", answer)
    names = [" ".join(re.sub(r"^[\W\d_]+|[\W_]+$", "", part).lower().split()) for part in parts]
    kept = [name for name in names if 1 <= len(name.split()) <= _MOST_TAG_WORDS and is_plain(name)]
    if not kept:
        raise RejectedAnswerError("without a name")
    return list(dict.fromkeys(kept))[:most]


def is_plain(name: str) -> bool:
    """Whether a text can be a name: letters, and nothing that means something to a prompt."""
    return any(map(str.isalpha, name)) and not MARKS.search(name) and "." not in name


def accepted_landmark(answer: str) -> dict[str, str]:
    """The kind of place, in the two fields of GranD.

    Raises:
        RejectedAnswerError: it is none.
    """
    found = _LANDMARK.search(answer)
    fine = " ".join(found[2].lower().split()[:3]).strip(" /-") if found else ""
    if found is None or not fine:
        raise RejectedAnswerError("no kind of place")
    return {"category": found[1].lower(), "fine_category": fine}


def accepted_relations(answer: str, objects: int, most: int) -> list[MarkedText]:
    """Sentences about two objects or more, of one a line.

    Raises:
        RejectedAnswerError: there is none.
    """
    return _marked_lines(answer, objects, most, 2)


def accepted_affordances(answer: str, objects: int, most: int) -> list[MarkedText]:
    """Sentences about an object, of one a line.

    Raises:
        RejectedAnswerError: there is none.
    """
    return _marked_lines(answer, objects, most, 1)


def _marked_lines(answer: str, objects: int, most: int, least: int) -> list[MarkedText]:
    found: dict[str, MarkedText] = {}
    for line in answer.splitlines():
        said = read_marked(re.sub(r"^\s*(?:[-*\u2022]|\d+[.)])\s*", "", line).strip(), objects)
        if said is not None and len(objects_of(said)) >= least:
            found.setdefault(said.text, said)
    if not found:
        raise RejectedAnswerError("without a sentence about numbered objects")
    return list(found.values())[:most]


def objects_of(said: MarkedText) -> list[int]:
    """The objects of a sentence, each once, in its order."""
    return list(dict.fromkeys(index for _, indices in said.named for index in indices))


def describe_objects(objects: Sequence[dict[str, Any]], size: tuple[int, int]) -> str:
    """Objects by number with what is known of them, as models are told.

    Args:
        objects: of a record.
        size: (width, height) of the picture.
    """
    return list_objects([f"{called(one)}, {place_of(one, size)}" for one in objects])


def called(item: dict[str, Any]) -> str:
    """What an object is called: its first attribute, which names it, or its label."""
    label: str = item["label"]
    texts: list[str] = item.get("attributes", [])
    return f"{label} ({texts[0]})" if texts else label


def place_of(item: dict[str, Any], size: tuple[int, int]) -> str:
    """Where an object is, in words."""
    x1, y1, x2, y2 = item["bbox"]
    across = _third((x1 + x2) / 2 / size[0], ("on the left", "in the middle", "on the right"))
    down = _third((y1 + y2) / 2 / size[1], ("at the top", "", "at the bottom"))
    return f"{down} {across}".strip()


def _third(share: float, names: tuple[str, str, str]) -> str:
    return names[min(2, max(0, int(3 * share)))]


def layer_of(depth: float) -> str:
    """The layer of the picture that something lies in."""
    return next(name for limit, name in LAYERS if depth < limit)


def scene_graph(record: dict[str, Any]) -> str:
    """All that is known of a picture as lines of text: layers from front to back, relations."""
    size = record["width"], record["height"]
    lines = []
    if landmark := record.get("landmark"):
        lines.append(f"Place: {landmark['fine_category']} ({landmark['category']})")
    for layer, items in _layers(record["objects"]):
        named = "; ".join(f"{called(one)}, {place_of(one, size)}" for one in items)
        lines.append(f"{layer.capitalize()}: {named}")
    lines += [f"Relation: {one['summary']}" for one in record.get("relationships", ())]
    lines += [f"Caption: {one['caption']}" for one in record.get("short_captions", ())]
    return "\n".join(lines)


def _layers(objects: Sequence[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Objects by layer, the nearest first; all together where no depth is known."""
    if not all("depth" in one for one in objects):
        return [("objects", list(objects))]
    ordered = sorted(objects, key=lambda one: one["depth"])
    layers: dict[str, list[dict[str, Any]]] = {}
    for one in ordered:
        layers.setdefault(layer_of(one["depth"]), []).append(one)
    return layers.items()
