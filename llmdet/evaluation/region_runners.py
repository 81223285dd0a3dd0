"""Metrics of answers about regions as functions of two paths, as those of ``runners``."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from llmdet.datasets.question_rows import read_questions
from llmdet.errors import DataError
from llmdet.evaluation.answers import answer_scores
from llmdet.evaluation.coco_classification import coco_classification
from llmdet.evaluation.completeness import check_complete
from llmdet.evaluation.expressions import read_expressions
from llmdet.evaluation.ground_truth import (
    GroundTruth,
    LVISGroundTruth,
    parse_coco,
    parse_lvis,
    read_coco,
)
from llmdet.evaluation.loading import (
    Source,
    load_answers,
    load_detections,
    load_region_names,
    rows_of,
)
from llmdet.evaluation.region_choice import choice_scores
from llmdet.evaluation.region_classification import (
    class_accuracy,
    named_regions,
    semantic_iou,
    semantic_similarity,
)
from llmdet.evaluation.retrieval import retrieval_scores
from llmdet.utils.files import read_json, read_npz

Values = dict[str, Any]


def run_coco_classification(gt: Path, pred: Source, *, partial: bool = False) -> Values:
    """Naming COCO's annotated objects: AP with right boxes, accuracy, discarded answers.

    Predictions are rows by annotation id (RegionClassificationDataset).
    """
    truth = read_coco(gt)
    said = load_answers(pred)
    _check_answered(pred, said, truth.ids[~truth.crowd].tolist(), "regions", partial)
    return coco_classification(truth, said)


def run_region_classification(gt: Path, pred: Source, *, text_encoder: str | None = None) -> Values:
    """Accuracy of class scores (npz), or likeness of free text to the names of given regions.

    GT is ``{categories, regions}``, or COCO, LVIS or PACO annotations. Options:
    ``text_encoder=sentence-transformers/all-MiniLM-L6-v2`` (a folder, or a name of the hub) encodes
    sentences, without which there is no semantic similarity.
    """
    regions, labels, names = named_regions(read_json(gt), str(gt))
    if isinstance(pred, Path) and pred.suffix == ".npz":
        return dict(class_accuracy(read_npz(pred, "scores")[0], labels))
    answers = load_region_names(regions, pred)
    right = [names[label] for label in labels]
    values: Values = {"semantic_iou": semantic_iou(answers, right)}
    if text_encoder is not None:
        values["semantic_similarity"] = semantic_similarity(answers, right, text_encoder)
    return values | {"regions": len(answers)}


def run_retrieval(gt: Path, pred: Path, *, partial: bool = False) -> Values:
    """Precision, recall and F1 of the boxes that a model chose, at an overlap of 0.5.

    GT is COCO or LVIS. AP of the same boxes is the metric coco or lvis.
    """
    truth = read_objects(gt)
    boxes = truth.boxes if isinstance(truth, LVISGroundTruth) else truth
    return dict(retrieval_scores(truth, load_detections(pred, boxes, partial=partial)))


def read_objects(gt: Path) -> GroundTruth | LVISGroundTruth:
    """Annotations of COCO or, where categories have frequencies, of LVIS."""
    data = read_json(gt)
    categories = data.get("categories", ()) if isinstance(data, dict) else ()
    is_lvis = any(isinstance(each, dict) and "frequency" in each for each in categories)
    return parse_lvis(data, str(gt)) if is_lvis else parse_coco(data, str(gt))


def run_region_choice(gt: Path, pred: Source, *, partial: bool = False) -> Values:
    """Referring expressions answered by choosing among candidates (RegionChoiceDataset).

    ``found`` is the share of expressions with a right candidate; accuracy cannot be higher.
    """
    expressions = read_expressions(gt)
    rows = rows_of(pred)
    if rows is None:
        raise DataError(f"{pred} is no prediction file, which has the candidates beside the answer")
    by_id = {row.image_id: row for row in rows}
    wanted = [expression.id for expression in expressions]
    _check_answered(pred, by_id, wanted, "expressions", partial)
    return dict(choice_scores(expressions, by_id))


def run_answers(gt: Path, pred: Source, *, partial: bool = False) -> Values:
    """Share of answers that equal those of rows of conversations, by task (RowQuestionDataset)."""
    questions = list(read_questions(gt))
    wanted = {question.id: question.answer for question in questions}
    said = load_answers(pred)
    _check_answered(pred, said, wanted, "questions", partial)
    tasks = {question.id: question.task for question in questions}
    return answer_scores(wanted, said, tasks)


def _check_answered(
    pred: Source, said: Collection[int], wanted: Collection[int], what: str, partial: bool
) -> None:
    if isinstance(pred, Path):
        others = "the others count as wrong"
        check_complete(pred, said, wanted, partial=partial, what=what, others=others)
