"""Every metric as a function of two paths; keyword arguments are its named protocol options.

``partial=true`` of most (``tools/evaluate.py --partial``) accepts a file that lacks images.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from llmdet.errors import DataError
from llmdet.evaluation import (
    caption,
    coco_ap,
    d3,
    flickr30k,
    grefcoco,
    humanref,
    lvis_ap,
    odinw,
    omnilabel,
    ovdeval,
    pope,
    proposal_recall,
    refexp,
)
from llmdet.evaluation.average_precision import PrecisionRecall
from llmdet.evaluation.completeness import check_complete
from llmdet.evaluation.expressions import read_expressions
from llmdet.evaluation.ground_truth import GroundTruth, read_coco, read_lvis
from llmdet.evaluation.loading import (
    Source,
    load_answers,
    load_captions,
    load_detections,
    load_expression_boxes,
    load_humanref,
    load_phrase_boxes,
)
from llmdet.evaluation.predictions import is_prediction_file, read_predictions
from llmdet.utils.files import read_json, read_jsonl, require

Values = dict[str, Any]
AnnotationId0 = Literal["unmatched", "counted"]

D3_SPLITS = ("full", "pres", "abs")


def run_coco(
    gt: Path,
    pred: Path,
    *,
    limits: Literal["coco", "mmdet"] = "coco",
    annotation_id0: AnnotationId0 = "unmatched",
    class_split: Path | None = None,
    classwise: bool = False,
    partial: bool = False,
) -> Values:
    """COCO box AP.

    Options: ``limits=mmdet`` takes 100, 300 and 1000 detections per image and class;
    ``annotation_id0=counted`` counts matches with annotation id 0, which pycocotools does not;
    ``class_split=FILE`` adds open-vocabulary COCO's APs of the classes in its lists ``base`` and
    ``novel``; ``classwise=true`` adds the AP of every class by its name.
    """
    truth = _with_ids(read_coco(gt), annotation_id0)
    max_dets = coco_ap.DEFAULT_MAX_DETS if limits == "coco" else coco_ap.MMDET_MAX_DETS
    curves = coco_ap.coco_curves(truth, load_detections(pred, truth, partial=partial), max_dets)
    values: Values = dict(coco_ap.coco_summary(curves))
    if class_split is not None:
        split = read_json(class_split)
        base, novel = (set(require(split, name, str(class_split))) for name in ("base", "novel"))
        values |= coco_ap.split_ap(curves, truth, base, novel)
    return values | _classwise(curves, truth, classwise)


def run_lvis(
    gt: Path,
    pred: Path,
    *,
    max_dets: int = 300,
    classwise: bool = False,
    partial: bool = False,
) -> Values:
    """LVIS box AP.

    Options: ``max_dets`` per image over all classes, -1 for no limit; ``classwise=true`` adds
    the AP of every class by its name.
    """
    truth = read_lvis(gt)
    detections = load_detections(pred, truth.boxes, partial=partial)
    if max_dets >= 0:
        detections = lvis_ap.cap_per_image(detections, max_dets)
    curves = lvis_ap.lvis_curves(truth, detections)
    values = lvis_ap.lvis_summary(truth, curves, max_dets)
    return values | _classwise(curves, truth.boxes, classwise)


def run_lvis_fixed_ap(
    gt: Path,
    pred: Path,
    *,
    topk: int = lvis_ap.MAX_DETS_PER_CLASS,
    cut_order: lvis_ap.CutOrder = "all",
    classwise: bool = False,
    partial: bool = False,
) -> Values:
    """LVIS fixed AP: the best 10,000 detections of each class.

    Options: ``topk`` detections per class; ``cut_order=federated`` cuts among the detections
    that are judged instead of among all; ``classwise=true`` adds the AP of every class by its name.
    """
    truth = read_lvis(gt)
    detections = load_detections(pred, truth.boxes, uncapped=True, partial=partial)
    detections = lvis_ap.cap_per_class(truth, detections, topk, cut_order)
    curves = lvis_ap.lvis_curves(truth, detections)
    values = lvis_ap.lvis_summary(truth, curves, max_dets=-1)
    return values | _classwise(curves, truth.boxes, classwise)


def run_proposal_recall(gt: Path, pred: Path, *, partial: bool = False) -> Values:
    """Average recall of the best 100, 300 and 900 boxes of an image, without categories."""
    truth = read_coco(gt)
    detections = load_detections(pred, truth, classless=True, partial=partial)
    return dict(proposal_recall.proposal_recall(truth, detections))


def run_refexp(
    gt: Path,
    pred: Path,
    *,
    criterion: refexp.Criterion = "iou",
    order: refexp.Order = "score",
    partial: bool = False,
) -> Values:
    """RefCOCO, RefCOCO+ and RefCOCOg precision@1, 5, 10.

    Options: ``criterion=giou`` is MDETR's program; ``order=file`` takes boxes as they come, as
    mmdet does.
    """
    expressions = read_expressions(gt)
    boxes = load_expression_boxes(pred, expressions, partial=partial)
    return dict(refexp.refexp_precision(expressions, boxes, criterion=criterion, order=order))


def run_grefcoco(
    gt: Path,
    pred: Path,
    *,
    criterion: Literal["giou", "iou"] = "giou",
    targets: Literal["all", "first"] = "all",
    score_threshold: float = grefcoco.SCORE_THRESHOLD,
    partial: bool = False,
) -> Values:
    """gRefCOCO F1, T-acc and N-acc.

    Options: ``criterion=iou`` as mmdet; ``targets=first`` looks at the first target alone, which
    is mmdet's fault; ``score_threshold`` of an answer.
    """
    expressions = read_expressions(gt)
    return dict(
        grefcoco.grefcoco_scores(
            expressions,
            load_expression_boxes(pred, expressions, partial=partial),
            criterion=criterion,
            targets=targets,
            score_threshold=score_threshold,
        )
    )


def run_flickr30k(
    gt: Path,
    pred: Path,
    *,
    boxes: Literal["any", "merged"] = "any",
    split: str = "test",
    partial: bool = False,
) -> Values:
    """Flickr30k Entities recall@1, 5, 10 and upper bound.

    Options: ``boxes=merged`` replaces the boxes of a phrase by their enclosing box; ``split`` is
    the list of images in a folder or zip of Flickr30k Entities.
    """
    sentences = flickr30k.read_flickr30k(gt, split)
    predictions = load_phrase_boxes(sentences, pred, partial=partial)
    return dict(flickr30k.flickr30k_recall(sentences, predictions, boxes=boxes))


def run_d3(
    gt: Path,
    pred: Path,
    *,
    annotation_id0: AnnotationId0 = "unmatched",
    by_count: bool = False,
    partial: bool = False,
) -> Values:
    """D3 AP of one annotation file, or of full, pres and abs in a folder.

    Options: ``annotation_id0=counted`` counts matches with annotation id 0, which pycocotools
    does not; ``by_count=true`` adds AP by the number of boxes of a description in an image.
    """
    if gt.is_file():
        return _d3_split(gt, pred, annotation_id0, by_count, partial)
    values = {}
    for split in D3_SPLITS:
        files = sorted(gt.glob(f"d3_{split}_annotations.json*"))
        if len(files) != 1:
            raise DataError(f"{gt} must hold one d3_{split}_annotations.json, it has {len(files)}")
        values[split] = _d3_split(files[0], pred, annotation_id0, by_count, partial)
    return values


def _d3_split(
    gt: Path, pred: Path, annotation_id0: AnnotationId0, by_count: bool, partial: bool
) -> Values:
    truth = _with_ids(read_coco(gt), annotation_id0)
    detections = load_detections(pred, truth, partial=partial)
    values: Values = dict(d3.d3_ap(truth, detections))
    return values | ({"by_count": d3.d3_ap_by_count(truth, detections)} if by_count else {})


def run_ovdeval(
    gt: Path,
    pred: Path,
    *,
    nms: bool = True,
    annotation_id0: AnnotationId0 = "unmatched",
    partial: bool = False,
) -> Values:
    """OVDEval NMS-AP.

    Options: ``nms=false`` is plain COCO AP; ``annotation_id0=counted`` counts matches with
    annotation id 0, which pycocotools does not.
    """
    truth = _with_ids(read_coco(gt), annotation_id0)
    detections = load_detections(pred, truth, partial=partial)
    return dict((ovdeval.nms_ap if nms else coco_ap.coco_ap)(truth, detections))


def run_omnilabel(gt: Path, pred: Path, *, partial: bool = False) -> Values:
    """OmniLabel AP: harmonic mean over categories and descriptions, and its parts."""
    truth = omnilabel.read_omnilabel(gt)
    if is_prediction_file(pred):
        rows = read_predictions(pred)[1]
        predicted = [row.image_id for row in rows]
        results = omnilabel.results_from_predictions(rows)
    else:
        results = read_json(pred)
        predicted = [require(record, "image_id", str(pred)) for record in results]
    wanted = {image for image, _ in truth.pairs}
    check_complete(pred, predicted, wanted, partial=partial)
    detections = omnilabel.parse_omnilabel_results(results, truth, str(pred))
    counts = omnilabel.box_counts(truth, detections)
    return {**omnilabel.omnilabel_ap(truth, detections), "boxes": counts}


def run_odinw(
    gt: Path, pred: Path, *, sets: odinw.SetGroup = "odinw13", partial: bool = False
) -> Values:
    """ODinW: COCO AP of each set and their plain mean.

    Options: ``sets`` are ``odinw13``, ``odinw35``, or those of the 35 that have predictions.
    """
    values: Values = {}
    for entry in odinw.choose_sets(sets, pred):
        truth = read_coco(gt / entry.ann_file)
        curves = coco_ap.coco_curves(
            truth,
            load_detections(odinw.prediction_file(pred, entry), truth, partial=partial),
            coco_ap.MMDET_MAX_DETS,
        )
        values[entry.name] = coco_ap.coco_summary(curves)["AP"]
    return {"mean": odinw.mean_ap(values), "sets": values}


def run_humanref(
    gt: Path, pred: Source, *, density: humanref.Density = "answers", partial: bool = False
) -> Values:
    """HumanRef recall, precision and density F1, and the share of rejections.

    Options: ``density=persons`` is the factor of the README instead of the program's.
    """
    records = humanref.read_humanref(gt)
    predictions = load_humanref(pred)
    if isinstance(pred, Path):
        wanted = [record.id for record in records]
        check_complete(pred, predictions, wanted, partial=partial, what="expressions")
    return humanref.humanref_scores(records, predictions, density=density)


def run_caption(gt: Path, pred: Source, *, partial: bool = False) -> Values:
    """Caption BLEU, METEOR, ROUGE-L and CIDEr (needs Java)."""
    references, captions = caption.read_references(gt), load_captions(pred)
    if isinstance(pred, Path):
        others = "the others are left out"
        check_complete(pred, captions, references, partial=partial, others=others)
    return dict(caption.caption_scores(references, captions))


def run_pope(gt: Path, pred: Source) -> Values:
    """POPE accuracy, precision, recall, F1 and share of yes."""
    questions = [record for _, record in read_jsonl(gt)]
    return dict(pope.pope_scores(questions, load_answers(pred)))


def _with_ids(truth: GroundTruth, annotation_id0: AnnotationId0) -> GroundTruth:
    if annotation_id0 == "unmatched":
        return truth
    return dataclasses.replace(truth, ids=truth.ids + 1)


def _classwise(curves: PrecisionRecall, truth: GroundTruth, wanted: bool) -> Values:
    """AP of every class by its name; of classes that share a name, with their ids."""
    if not wanted:
        return {}
    names = dict(zip(truth.category_ids.tolist(), truth.category_names, strict=True))
    shared = Counter(names.values())
    return {
        "per_category": {
            names[category]
            if shared[names[category]] == 1
            else f"{names[category]} (id {category})": ap
            for category, ap in curves.per_category().items()
        }
    }
