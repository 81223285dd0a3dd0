"""Flickr30k Entities: is a phrase's box among the k best predicted for it?"""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_iou
from llmdet.utils.files import read_bytes, read_json, read_jsonl, require

TOPK = (1, 5, 10)
IOU_THRESHOLD = 0.5
PHRASE = re.compile(r"\[/EN#(?P<id>\d+)(?P<types>(?:/[a-z]+)+)\s[^\]]*\]")

Protocol = Literal["any", "merged"]
SentenceKey = tuple[str, int]  # image id, number of the sentence


@dataclasses.dataclass(frozen=True)
class GroundedPhrase:
    """A phrase of a sentence that has boxes."""

    types: tuple[str, ...]  # people, clothing, ...
    boxes: np.ndarray  # [N, 4] xyxy, N > 0
    label: int = 0  # place among all phrases of the sentence that a prompt has


def read_flickr30k(
    path: str | Path, split: str = "test"
) -> dict[SentenceKey, list[GroundedPhrase]]:
    """Phrases with boxes of every sentence that has any.

    Args:
        path: the Flickr30k Entities folder or a zip of it (``Annotations``, ``Sentences``,
            ``SPLIT.txt``), a JSONL file with one sentence a line: ``image_id``,
            ``sentence_id`` and ``phrases`` of ``phrase_type`` and ``boxes``, or MDETR's JSON of
            the data set in configs, whose sentences have ids of their own and no types.
        split: which list of images to read from a folder or zip.
    """
    path = Path(path)
    if path.is_dir() or zipfile.is_zipfile(path):
        return dict(_read_entities(path, split))
    if ".jsonl" not in path.name:
        return _read_mdetr(read_json(path), str(path))
    sentences = {}
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        phrases = [
            GroundedPhrase(tuple(phrase["phrase_type"]), np.asarray(phrase["boxes"], np.float64))
            for phrase in require(record, "phrases", where)
            if phrase["boxes"]
        ]
        if phrases:
            key = (str(require(record, "image_id", where)), int(record["sentence_id"]))
            sentences[key] = phrases
    return sentences


def read_flickr30k_predictions(path: str | Path) -> dict[SentenceKey, list[Any]]:
    """MDETR's JSONL: ``image_id``, ``sentence_id``, ``boxes`` (per phrase, xyxy, best first)."""
    predictions = {}
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        key = (str(require(record, "image_id", where)), int(require(record, "sentence_id", where)))
        predictions[key] = require(record, "boxes", where)
    return predictions


def flickr30k_recall(
    sentences: Mapping[SentenceKey, Sequence[GroundedPhrase]],
    predictions: Mapping[SentenceKey, Sequence[Any]],
    *,
    boxes: Protocol = "any",
    topk: Sequence[int] = TOPK,
) -> dict[str, float]:
    """Recall@k and upper bound over phrases, for all and for each type of phrase.

    A phrase with several types counts in each of them and once in ``all``. A phrase for which
    nothing is predicted is a miss.

    Args:
        sentences: phrases with boxes.
        predictions: per phrase of the sentence, boxes [N, 4] xyxy, best first.
        boxes: ``any`` box of the phrase may be hit, or their enclosing box (``merged``).
        topk: numbers of boxes that may try; the upper bound lets all try.
    Raises:
        DataError: a sentence is not predicted or has another number of phrases.
    Source: MDETR (Kamath et al. 2021, section 4.2), the ANY-BOX and MERGED-BOXES protocols.
    """
    ranks: dict[str, list[int]] = {"all": []}
    for key, phrases in sentences.items():
        if key not in predictions:
            raise DataError(f"no predictions for image {key[0]}, sentence {key[1]}")
        predicted = predictions[key]
        if len(predicted) != len(phrases):
            raise DataError(
                f"image {key[0]}, sentence {key[1]} has {len(phrases)} phrases with boxes but "
                f"predictions for {len(predicted)}"
            )
        for phrase, candidates in zip(phrases, predicted, strict=True):
            rank = first_hit(phrase, candidates, boxes)
            for group in ("all", *phrase.types):
                ranks.setdefault(group, []).append(rank)
    by_group = {
        group: recall_of_hits(np.asarray(values), topk) for group, values in sorted(ranks.items())
    }
    return {
        f"{name}_{group}": values[name]
        for name in (*(f"Recall@{k}" for k in topk), "Upper_bound")
        for group, values in by_group.items()
        if values
    }


def first_hit(phrase: GroundedPhrase, candidates: Any, boxes: Protocol) -> int:
    """Rank (from 0) of the first candidate [N, 4] xyxy that hits the phrase, -1 if none does."""
    wanted = phrase.boxes
    if boxes == "merged":
        wanted = np.concatenate([wanted[:, :2].min(axis=0), wanted[:, 2:].max(axis=0)])[None]
    candidates = np.asarray(candidates, np.float64).reshape(-1, 4)
    hits = np.flatnonzero((pairwise_iou(candidates, wanted) >= IOU_THRESHOLD).any(axis=1))
    return int(hits[0]) if len(hits) else -1


def recall_of_hits(ranks: np.ndarray, topk: Sequence[int]) -> dict[str, float]:
    """Recall@k and upper bound of phrases, from the rank of the first hit of each [P]."""
    if len(ranks) == 0:
        return {}
    found = ranks >= 0
    recall = {f"Recall@{k}": float((found & (ranks < k)).mean()) for k in topk}
    return recall | {"Upper_bound": float(found.mean())}


def _read_mdetr(content: dict[str, Any], where: str) -> dict[SentenceKey, list[GroundedPhrase]]:
    """Sentences of MDETR's JSON; phrases are numbered by their rank among those with boxes."""
    boxes: dict[int, dict[int, list[list[float]]]] = {}
    for index, annotation in enumerate(require(content, "annotations", where)):
        place = f"{where}: annotations[{index}]"
        x, y, width, height = require(annotation, "bbox", place)
        phrases = boxes.setdefault(require(annotation, "image_id", place), {})
        phrase = require(annotation, "phrase_ids", place)
        phrases.setdefault(phrase, []).append([x, y, x + width, y + height])
    return {
        (str(image), 0): [
            GroundedPhrase((), np.asarray(phrases[identity], np.float64), label)
            for label, identity in enumerate(sorted(phrases))
        ]
        for image, phrases in boxes.items()
    }


def _read_entities(path: Path, split: str) -> Iterator[tuple[SentenceKey, list[GroundedPhrase]]]:
    for image in _member(path, f"{split}.txt").split():
        boxes = _entity_boxes(_member(path, f"Annotations/{image}.xml"), f"{path}: {image}.xml")
        for number, line in enumerate(_member(path, f"Sentences/{image}.txt").splitlines()):
            phrases = [
                GroundedPhrase(tuple(match["types"][1:].split("/")), boxes[match["id"]])
                for match in PHRASE.finditer(line)
                if match["id"] in boxes
            ]
            if phrases:
                yield (image, number), phrases


def _entity_boxes(text: str, where: str) -> dict[str, np.ndarray]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{where} is not valid XML: {error}") from error
    boxes: dict[str, list[list[float]]] = {}
    for item in root.iter("object"):
        box = item.find("bndbox")
        if box is None:
            continue
        corners = [float(box.findtext(name, "nan")) for name in ("xmin", "ymin", "xmax", "ymax")]
        for name in item.iter("name"):
            boxes.setdefault(str(name.text), []).append(corners)
    return {name: np.asarray(values) for name, values in boxes.items()}


def _member(path: Path, name: str) -> str:
    if path.is_dir():
        return read_bytes(path / name).decode()
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except KeyError as error:
        raise DataError(f"{path} has no {name}") from error
