"""Why a detector fails: every detection and every missed box gets a kind of error.

The kinds, and what average precision would gain if one of them were fixed, follow TIDE.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from llmdet.evaluation.average_precision import evaluate_detections
from llmdet.evaluation.detections import DetectionTable, rank_in_runs
from llmdet.evaluation.ground_truth import GroundTruth
from llmdet.evaluation.matching import box_iou, candidate_pairs, greedy_match

FOREGROUND = 0.5  # IoU from which a box is found
BACKGROUND = 0.1  # IoU below which a detection lies on nothing
MAX_DETS = 100  # per image, as in TIDE
KINDS = ("right", "class", "location", "both", "duplicate", "background", "ignored")
FIXABLE = KINDS[1:6]

RIGHT, CLASS, LOCATION, BOTH, DUPLICATE, NOTHING, IGNORED = range(len(KINDS))


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Kinds of error of N detections and G boxes; crowds are left out."""

    truth: GroundTruth  # G boxes that count
    detections: DetectionTable  # N, at most MAX_DETS per image
    kinds: np.ndarray  # [N] index into KINDS
    boxes: np.ndarray  # [N] box that the detection found or should have, -1 for none
    found: np.ndarray  # [G] bool, some detection is right about it
    missed: np.ndarray  # [G] bool, and no error of class or location points at it either

    def counts(self, threshold: float = 0.0) -> dict[str, int]:
        """Detections of each kind that score ``threshold`` or more, and missed boxes."""
        kinds = self.kinds[self.detections.scores >= threshold]
        numbers = np.bincount(kinds, minlength=len(KINDS)).tolist()
        return {**dict(zip(KINDS, numbers, strict=True)), "missed": int(self.missed.sum())}


def diagnose(truth: GroundTruth, detections: DetectionTable) -> Diagnosis:
    """Classify every detection by what is wrong with it.

    ``class``: on a box of another class; ``location``: near a box of its class, with an IoU of
    0.1 to 0.5; ``both``: near a box of another class; ``duplicate``: on a box that a better
    scored one has; ``background``: on nothing. A box is ``missed`` if it is not found and no
    error of class or location points at it. Detections on crowds are ``ignored``.

    Args:
        truth: annotations.
        detections: those that are to be judged, of annotated classes and images.
    Source: TIDE (Bolya et al. 2020, section 2).
    """
    known = np.isin(detections.category_ids, truth.category_ids)
    detections = _best_of_image(detections.select(known))
    pairs = _overlaps(truth, detections)
    same = detections.category_ids[pairs.detections] == truth.categories[pairs.boxes]
    crowd = truth.crowd[pairs.boxes]
    same_iou, same_box = _closest(pairs, same & ~crowd, len(detections))
    other_iou, other_box = _closest(pairs, ~same & ~crowd, len(detections))
    crowd_iou, _ = _closest(pairs, same & crowd, len(detections))
    right = _right(truth, detections)
    explanations = (  # the first that holds
        (right >= 0, RIGHT, right),
        (crowd_iou >= FOREGROUND, IGNORED, -1),
        ((same_iou >= BACKGROUND) & (same_iou < FOREGROUND), LOCATION, same_box),
        (other_iou >= FOREGROUND, CLASS, other_box),
        (same_iou >= FOREGROUND, DUPLICATE, same_box),
        (other_iou >= BACKGROUND, BOTH, other_box),
    )
    conditions = [holds for holds, _, _ in explanations]
    kinds = np.select(conditions, [kind for _, kind, _ in explanations], NOTHING)
    boxes = np.select(conditions, [box for _, _, box in explanations], -1)
    taken = np.isin(np.arange(len(truth.ids)), right[right >= 0])
    pointed = np.zeros(len(truth.ids), bool)
    pointed[boxes[np.isin(kinds, (CLASS, LOCATION))]] = True
    counted = ~truth.crowd
    return Diagnosis(truth, detections, kinds, boxes, taken & counted, ~taken & ~pointed & counted)


def possible_gains(diagnosis: Diagnosis) -> dict[str, float]:
    """AP50, and how much it would gain if each kind of error alone were fixed.

    Errors of class and location are corrected (or dropped where their box is taken), the others
    dropped; missed boxes are no longer counted.

    Returns:
        ``AP50``, then the gain by kind of error and for ``missed``.
    Source: TIDE (Bolya et al. 2020, section 2.3).
    """
    base = _ap50(diagnosis.truth, diagnosis.detections)
    gains = {"AP50": base}
    corrections: dict[str, Callable[[Diagnosis], DetectionTable]] = {
        "class": lambda d: _corrected(d, CLASS),
        "location": lambda d: _corrected(d, LOCATION),
    }
    for kind in FIXABLE:
        if kind in corrections:
            detections = corrections[kind](diagnosis)
        else:
            keep = diagnosis.kinds != KINDS.index(kind)
            detections = diagnosis.detections.select(keep)
        gains[kind] = _ap50(diagnosis.truth, detections) - base
    without_missed = diagnosis.truth.select(~diagnosis.missed)
    gains["missed"] = _ap50(without_missed, diagnosis.detections) - base
    return gains


def confusions(diagnosis: Diagnosis, threshold: float = 0.0) -> list[tuple[int, int, int]]:
    """Pairs of annotated and predicted category id with the number of errors of class.

    Args:
        diagnosis: of all detections.
        threshold: only detections that score this or more.
    """
    wrong = (diagnosis.kinds == CLASS) & (diagnosis.detections.scores >= threshold)
    actual = diagnosis.truth.categories[diagnosis.boxes[wrong]]
    said = diagnosis.detections.category_ids[wrong]
    pairs, counts = np.unique(np.stack([actual, said], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(a), int(b), int(n)) for (a, b), n in zip(pairs[order], counts[order], strict=True)]


def text_similarity(first: str, second: str) -> float:
    """Share of common letter triples of two names, 0..1: do they look alike to a text encoder?"""
    triples = []
    for name in (first, second):
        text = f"  {' '.join(name.lower().replace('_', ' ').split())} "
        triples.append({text[i : i + 3] for i in range(len(text) - 2)})
    union = triples[0] | triples[1]
    return len(triples[0] & triples[1]) / len(union) if union else 0.0


def _best_of_image(detections: DetectionTable) -> DetectionTable:
    order = np.lexsort((-detections.scores, detections.image_ids))
    return detections.select(order[rank_in_runs(detections.image_ids[order]) < MAX_DETS])


@dataclasses.dataclass(frozen=True)
class _Overlaps:
    detections: np.ndarray  # [P] row of the detection
    boxes: np.ndarray  # [P] row of the box
    ious: np.ndarray  # [P]


def _overlaps(truth: GroundTruth, detections: DetectionTable) -> _Overlaps:
    """Pairs of any classes in one image with an IoU of BACKGROUND or more."""
    order = np.argsort(truth.images, kind="stable")
    xywh, boxes, crowd = detections.xywh(), truth.boxes[order], truth.crowd[order]
    pairs = candidate_pairs(
        detections.image_ids,
        truth.images[order],
        lambda detection, box: box_iou(xywh[detection], boxes[box], crowd[box]),
        BACKGROUND,
    )
    return _Overlaps(pairs.detections, order[pairs.boxes], pairs.ious)


def _right(truth: GroundTruth, detections: DetectionTable) -> np.ndarray:
    """Box that each detection is right about, -1 for none: [N]."""
    width = np.int64(max(truth.category_ids.max(initial=0), 0) + 1)
    groups = detections.image_ids * width + detections.category_ids
    order = np.lexsort((-detections.scores, groups))
    gt_groups = truth.images * width + truth.categories
    gt_order = np.argsort(gt_groups, kind="stable")
    xywh, boxes, crowd = detections.xywh()[order], truth.boxes[gt_order], truth.crowd[gt_order]
    pairs = candidate_pairs(
        groups[order],
        gt_groups[gt_order],
        lambda detection, box: box_iou(xywh[detection], boxes[box], crowd[box]),
        FOREGROUND,
    )
    rows, matches = greedy_match(pairs, np.asarray([FOREGROUND]), crowd, crowd)
    result = np.full(len(detections), -1)
    hit = (matches[0] >= 0) & ~crowd[matches[0]] if len(rows) else np.zeros(0, bool)
    result[order[rows[hit]]] = gt_order[matches[0][hit]]
    return result


def _closest(pairs: _Overlaps, chosen: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU of each detection among the chosen pairs [N] (0 for none) and its box [N]."""
    index = np.flatnonzero(chosen)
    index = index[np.argsort(pairs.ious[index], kind="stable")]
    ious, boxes = np.zeros(total), np.full(total, -1)
    # of several assignments to a detection the last stays, which has its highest IoU
    ious[pairs.detections[index]] = pairs.ious[index]
    boxes[pairs.detections[index]] = pairs.boxes[index]
    return ious, boxes


def _corrected(diagnosis: Diagnosis, kind: int) -> DetectionTable:
    """Errors of a kind turned right: the best of each box that is not found, the others dropped."""
    detections = diagnosis.detections
    wrong = np.flatnonzero(diagnosis.kinds == kind)
    open_ = wrong[~diagnosis.found[diagnosis.boxes[wrong]]]
    order = open_[np.lexsort((-detections.scores[open_], diagnosis.boxes[open_]))]
    corrected = order[rank_in_runs(diagnosis.boxes[order]) == 0]
    boxes = detections.xywh()
    categories = detections.category_ids.copy()
    target = diagnosis.boxes[corrected]
    if kind == CLASS:
        categories[corrected] = diagnosis.truth.categories[target]
    else:
        boxes[corrected] = diagnosis.truth.boxes[target]
    keep = np.ones(len(detections), bool)
    keep[wrong] = False
    keep[corrected] = True
    fixed = DetectionTable(detections.image_ids, categories, boxes, detections.scores, "xywh")
    return fixed.select(keep)


def _ap50(truth: GroundTruth, detections: DetectionTable) -> float:
    curves = evaluate_detections(
        truth,
        detections,
        ignored=truth.crowd,
        max_dets=(0,),
        iou_thresholds=np.asarray([FOREGROUND]),
    )
    return curves.mean_precision()
