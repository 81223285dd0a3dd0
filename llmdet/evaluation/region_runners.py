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
from llmdet.evaluation.ground_truth import read_coco
from llmdet.evaluation.loading import Source, load_answers, rows_of
from llmdet.evaluation.region_choice import choice_scores

Values = dict[str, Any]


def run_coco_classification(gt: Path, pred: Source, *, partial: bool = False) -> Values:
    """Naming COCO's annotated objects: AP with right boxes, accuracy, discarded answers.

    Predictions are rows by annotation id (RegionClassificationDataset).
    """
    truth = read_coco(gt)
    said = load_answers(pred)
    _check_answered(pred, said, truth.ids[~truth.crowd].tolist(), "regions", partial)
    return coco_classification(truth, said)


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
