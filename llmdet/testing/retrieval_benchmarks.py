"""Miniatures of what models that find or name objects are tested on, and what is true of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmdet.datasets.toy.models import tiny_bert
from llmdet.evaluation.prediction_writer import PredictionWriter
from llmdet.evaluation.predictions import PredictionHeader, prediction_row
from llmdet.testing.benchmarks import BOXES, write_image, write_miniature

#: By set (None where there is one only) and id: true boxes (xyxy) of each name that is sought; of
#: sets of names, the name of each object.
Found = dict[tuple[str | None, int], Any]

_PEOPLE = [[x, y, x + width, y + height] for x, y, width, height in BOXES] + [[2.0, 20, 14, 30]]
_NOBODY = [30.0, 2.0, 40.0, 8.0]  # a candidate that is nothing
#: Expressions of HumanRef's miniature: domain, sub-domain, words, people.
_EXPRESSIONS = (
    ("attribute", "1000_attribute_data_with_mask", "person in red", (0,)),
    ("position", "500_inner_position_data_with_mask", "the two on the left", (0, 2)),
    ("interaction", "500_outer_interaction_data_with_mask", "everybody", (0, 1, 2)),
    ("rejection", "1000_rejection_referring_with_mask", "a nun", ()),
)


def write_retrieval_miniature(benchmark: str, root: str | Path) -> Found:
    """Write the files that an evaluation config of ``configs/{chatrex,rexseek}`` reads.

    Args:
        benchmark: name of the config, such as ``humanref``.
        root: folder to work in, which gets ``data/``.

    Returns:
        What a perfect model finds.
    """
    return RETRIEVAL_WRITERS[benchmark](Path(root))


def write_candidates(path: Path, boxes: dict[int, list[list[float]]]) -> None:
    """Write boxes by id as a test of a detector does, the first one with the highest score."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with PredictionWriter(path, PredictionHeader("tiny", weights_hash="abc")) as writer:
        for identity, owned in boxes.items():
            scores = [0.9 - 0.1 * number for number in range(len(owned))]
            writer.write(prediction_row(identity, owned, scores, [0] * len(owned)))


def _humanref(root: Path) -> Found:
    folder = root / "data" / "humanref"
    write_image(folder / "images" / "1.jpg")
    found: Found = {}
    lines = []
    for number, (domain, subdomain, text, people) in enumerate(_EXPRESSIONS):
        found[None, number] = {text: [_PEOPLE[person] for person in people]}
        record = {"id": number, "image_name": "1.jpg", "referring": text, "domain": domain}
        record |= {"sub_domain": subdomain, "candidate_boxes": _PEOPLE}
        lines.append(json.dumps({**record, "answer_boxes": found[None, number][text]}))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return found


def _of_classes(miniature: str, candidates: str) -> Callable[[Path], Found]:
    def write(root: Path) -> Found:
        answers = write_miniature(miniature, root)
        found: Found = {}
        for key, boxes in answers.items():
            found[key] = {str(name).partition("_(")[0]: [box] for box, name in boxes}
        offered = {
            image: [_NOBODY, *(box for box, _ in boxes)] for (_, image), boxes in answers.items()
        }
        write_candidates(root / "data" / "coco" / "candidates" / candidates, offered)
        return found

    return write


def _refexp(root: Path) -> Found:
    found: Found = {}
    for (name, identity), boxes in write_miniature("refexp", root).items():
        if "grefcoco" not in str(name):
            found[name, identity] = {"the red cat": [box for box, _ in boxes]}
            path = root / "data" / "coco" / "candidates" / f"{name}.jsonl"
            write_candidates(path, {identity: [_NOBODY, *_PEOPLE]})
    return found


def _names(file: str) -> Callable[[Path], Found]:
    def write(root: Path) -> Found:
        answers = write_miniature("lvis_val", root)
        tiny_bert(root / "checkpoints" / "all-MiniLM-L6-v2", heads=2, hidden_size=16)
        annotations = root / "data" / "coco" / "annotations"
        content = json.loads((annotations / "lvis_v1_val.json").read_text())
        for image in content["images"]:
            image["file_name"] = f"val2017/{image['file_name']}"
        (annotations / file).write_text(json.dumps(content))
        return {key: [str(name) for _, name in boxes] for key, boxes in answers.items()}

    return write


RETRIEVAL_WRITERS: dict[str, Callable[[Path], Found]] = {
    "humanref": _humanref,
    "coco_retrieval": _of_classes("coco", "instances_val2017.jsonl"),
    "lvis_retrieval": _of_classes("lvis_minival", "lvis_v1_minival.jsonl"),
    "refexp": _refexp,
    "lvis_names": _names("lvis_v1_val.json"),
    "paco_names": _names("paco_lvis_v1_val.json"),
}
