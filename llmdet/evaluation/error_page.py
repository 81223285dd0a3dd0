"""The page of errors: a diagnosis as HTML with pictures inside."""

import base64
import dataclasses
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageDraw

from llmdet.datasets.pictures import read_picture
from llmdet.errors import DataError
from llmdet.evaluation.coco_ap import coco_curves
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.diagnosis import (
    CLASS,
    KINDS,
    RIGHT,
    Diagnosis,
    confusions,
    diagnose,
    possible_gains,
    text_similarity,
)
from llmdet.evaluation.ground_truth import GroundTruth, parse_coco, parse_lvis
from llmdet.evaluation.loading import load_detections
from llmdet.evaluation.lvis_ap import federated_mask
from llmdet.utils.files import read_json

PICTURE_SIDE = 480  # px
LVIS_FIELD = "neg_category_ids"  # what only images of LVIS have
FOUND, MISSED, ALARM = (40, 160, 60), (210, 40, 40), (240, 140, 20)
STYLE = """
body { font: 14px sans-serif; margin: 2em; max-width: 110em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #ccc; padding: 3px 8px; text-align: right; }
td:first-child, th:first-child { text-align: left; }
figure { display: inline-block; margin: 6px; vertical-align: top; }
figcaption { font-size: 12px; max-width: 480px; }
"""


@dataclasses.dataclass(frozen=True)
class ClassErrors:
    """How one class does."""

    category: int
    ap: float  # over all IoU thresholds, -1 without boxes
    boxes: int
    missed: int  # boxes that no detection is right about
    alarms: int  # detections at or above the score threshold that are wrong
    confused: int  # boxes that were given another name, at or above the score threshold


def write_error_page(
    gt: Path,
    pred: Path,
    out: Path,
    *,
    images: Path | None,
    classes: int,
    pictures: int,
    score_threshold: float,
    partial: bool = False,
) -> None:
    """Diagnose a prediction file and write the page.

    Args:
        gt: COCO or LVIS annotations; LVIS by its federated rules.
        pred: predictions in any form that `load_detections` reads.
        out: HTML file.
        images: folder of the images, or None for no pictures.
        classes: number of worst classes to show.
        pictures: number of worst images of each.
        score_threshold: wrong detections below it count for AP alone: they are not counted by
            class, and neither drawn nor named.
        partial: accept a prediction file that lacks images.
    Raises:
        DataError: a file cannot be used or an image is missing.
    """
    content = read_json(gt)
    truth, detections = _judged(content, gt, pred, partial)
    curves = coco_curves(truth, detections)
    diagnosis = diagnose(truth, detections)
    names = dict(zip(truth.category_ids.tolist(), truth.category_names, strict=True))
    worst = _rank_classes(diagnosis, curves.per_category(), score_threshold)[:classes]
    confident = int((detections.scores >= score_threshold).sum())
    parts = [
        f"<h1>{html.escape(pred.name)}</h1><p>AP {curves.mean_precision():.4f}, "
        f"{len(truth.ids)} boxes, {len(detections)} judged detections, of which "
        f"{confident} score {score_threshold:g} or more</p>",
        _gains_table(diagnosis, score_threshold),
        _class_table(worst, names, score_threshold),
        _confusion_table(diagnosis, names, score_threshold),
    ]
    if images is not None:
        files = {image["id"]: images / image["file_name"] for image in _with_names(content, gt)}
        for entry in worst:
            parts.append(f"<h2>{html.escape(names[entry.category])}</h2>")
            for image in _worst_images(diagnosis, entry.category, score_threshold)[:pictures]:
                parts.append(
                    _figure(diagnosis, image, entry.category, files[image], names, score_threshold)
                )
    page = f"<!doctype html><meta charset=utf-8><title>Errors</title><style>{STYLE}</style>"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page + "\n".join(parts), encoding="utf-8")


def _judged(
    content: Mapping[str, Any], gt: Path, pred: Path, partial: bool
) -> tuple[GroundTruth, DetectionTable]:
    """Annotations and the detections that count on them."""
    images = content.get("images") or [{}]
    if LVIS_FIELD not in images[0]:
        truth = parse_coco(content, str(gt))
        detections = load_detections(pred, truth, partial=partial)
        return truth, detections.select(np.isin(detections.category_ids, truth.category_ids))
    federated = parse_lvis(content, str(gt))
    detections = load_detections(pred, federated.boxes, partial=partial)
    return federated.boxes, detections.select(federated_mask(federated, detections))


def _with_names(content: Mapping[str, Any], gt: Path) -> Iterable[Mapping[str, Any]]:
    for image in content["images"]:
        if "coco_url" in image and LVIS_FIELD in image:  # named by the tail of the address
            yield {**image, "file_name": "/".join(image["coco_url"].split("/")[-2:])}
        elif "file_name" in image:
            yield image
        else:
            raise DataError(f"{gt}: image {image['id']} has neither file_name nor coco_url")


def _rank_classes(
    diagnosis: Diagnosis, average_precision: Mapping[int, float], threshold: float
) -> list[ClassErrors]:
    """Classes with boxes, those that lose most boxes and raise most false alarms first."""
    truth, found = diagnosis.truth, diagnosis.detections
    wrong = (diagnosis.kinds != RIGHT) & (found.scores >= threshold)
    named = diagnosis.boxes[(diagnosis.kinds == CLASS) & (found.scores >= threshold)]
    entries = []
    for category in truth.category_ids.tolist():
        of_class = (truth.categories == category) & ~truth.crowd
        entries.append(
            ClassErrors(
                category=category,
                ap=average_precision[category],
                boxes=int(of_class.sum()),
                missed=int((of_class & ~diagnosis.found).sum()),
                alarms=int((wrong & (found.category_ids == category)).sum()),
                confused=len(np.unique(named[of_class[named]])),
            )
        )
    entries = [entry for entry in entries if entry.boxes]
    return sorted(entries, key=lambda entry: (entry.ap, -entry.missed - entry.alarms))


def _worst_images(diagnosis: Diagnosis, category: int, threshold: float) -> list[int]:
    """Images of a class, most missed boxes and wrong detections first."""
    truth, found = diagnosis.truth, diagnosis.detections
    missed = (truth.categories == category) & ~diagnosis.found & ~truth.crowd
    wrong = (found.category_ids == category) & (diagnosis.kinds != RIGHT)
    wrong &= found.scores >= threshold
    images, counts = np.unique(
        np.concatenate([truth.images[missed], found.image_ids[wrong]]), return_counts=True
    )
    return images[np.argsort(-counts, kind="stable")].tolist()


def _gains_table(diagnosis: Diagnosis, threshold: float) -> str:
    gains, counts = possible_gains(diagnosis), diagnosis.counts()
    confident = diagnosis.counts(threshold)
    rows = [
        (kind, counts[kind], confident[kind], f"{100 * gains[kind]:+.2f}")
        for kind in gains
        if kind in counts
    ]
    title = f"<h2>What AP50 ({100 * gains['AP50']:.2f}) would gain if one kind were fixed</h2>"
    header = ("kind of error", "number", f"score {threshold:g} or more", "AP50 gain")
    return title + _table(header, rows)


def _class_table(entries: Sequence[ClassErrors], names: Mapping[int, str], threshold: float) -> str:
    rows = [
        (names[e.category], f"{100 * e.ap:.1f}", e.boxes, e.missed, e.confused, e.alarms)
        for e in entries
    ]
    header = ("class", "AP", "boxes", "not found", "given another name", "wrong detections")
    note = (
        f"<p>Of detections that score {threshold:g} or more: boxes that one with another name lies "
        "on, and wrong detections of the class. A box is not found if no detection of whatever "
        "score is right about it.</p>"
    )
    return "<h2>Worst classes</h2>" + note + _table(header, rows)


def _confusion_table(
    diagnosis: Diagnosis, names: Mapping[int, str], threshold: float, limit: int = 20
) -> str:
    rows = [
        (names[actual], names[said], count, f"{text_similarity(names[actual], names[said]):.2f}")
        for actual, said, count in confusions(diagnosis, threshold)[:limit]
    ]
    header = ("annotated", "predicted", "number", "similarity of the names")
    title = f"<h2>Confused names, of detections that score {threshold:g} or more</h2>"
    return title + _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in header)]
    for row in rows:
        lines.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _figure(
    diagnosis: Diagnosis,
    image: int,
    category: int,
    path: Path,
    names: Mapping[int, str],
    threshold: float,
) -> str:
    """A picture: found boxes green, missed ones red, wrong detections orange."""
    truth, found = diagnosis.truth, diagnosis.detections
    rows = np.flatnonzero((truth.images == image) & (truth.categories == category) & ~truth.crowd)
    marks = [(truth.boxes[row], FOUND if diagnosis.found[row] else MISSED, "") for row in rows]
    wrong = (found.image_ids == image) & (found.scores >= threshold)
    wrong &= (found.category_ids == category) & (diagnosis.kinds != RIGHT)
    xywh = found.xywh()
    for row in np.flatnonzero(wrong):
        kind = KINDS[diagnosis.kinds[row]]
        marks.append((xywh[row], ALARM, f"{kind} {found.scores[row]:.2f}"))
    missed = sum(colour == MISSED for _, colour, _ in marks)
    caption = f"{path.name}: {missed} of {len(rows)} not found, {int(wrong.sum())} wrong"
    instead = _names_given(diagnosis, rows, names, threshold)
    if instead:
        caption += f"; called {', '.join(instead)}"
    data = base64.b64encode(_draw(path, marks)).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{html.escape(path.name)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _names_given(
    diagnosis: Diagnosis, rows: np.ndarray, names: Mapping[int, str], threshold: float
) -> list[str]:
    wrong = (diagnosis.kinds == CLASS) & np.isin(diagnosis.boxes, rows)
    wrong &= diagnosis.detections.scores >= threshold
    return sorted({names[c] for c in diagnosis.detections.category_ids[wrong].tolist()})


def _draw(path: Path, marks: Sequence[tuple[np.ndarray, tuple[int, int, int], str]]) -> bytes:
    picture = read_picture(path)
    scale = min(1.0, PICTURE_SIDE / max(picture.size))
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    draw = ImageDraw.Draw(picture)
    for box, colour, text in marks:
        x, y, width, height = (box * scale).tolist()
        draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colour, width=2)
        if text:
            draw.text((x + 3, y + 2), text, fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
