"""Predictions from any of the file formats that the metrics accept, and from rows in memory.

Every function takes a `Source`: the rows of a prediction file, its path, or a path of the
benchmark's own format. Rows win wherever both would do: one reader per metric.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.completeness import check_complete
from llmdet.evaluation.detections import (
    DetectionTable,
    empty_detections,
    read_coco_results,
    read_npz_detections,
)
from llmdet.evaluation.expressions import (
    Expression,
    ScoredBoxes,
    group_boxes,
    read_expression_boxes,
)
from llmdet.evaluation.flickr30k import (
    GroundedPhrase,
    SentenceKey,
    read_flickr30k_predictions,
)
from llmdet.evaluation.gcg import GCGPrediction, read_gcg_predictions
from llmdet.evaluation.ground_truth import GroundTruth, labels_to_categories
from llmdet.evaluation.humanref import read_humanref_predictions
from llmdet.evaluation.predictions import (
    ImagePredictions,
    PredictionHeader,
    is_prediction_file,
    read_predictions,
)
from llmdet.evaluation.region_classification import name_in
from llmdet.evaluation.res import encode
from llmdet.prompts.masks import MaskGrammar
from llmdet.utils.files import read_json, read_jsonl, require

Source = Path | Sequence[ImagePredictions]
Value = TypeVar("Value")


def load_detections(
    path: str | Path,
    truth: GroundTruth,
    *,
    uncapped: bool = False,
    classless: bool = False,
    partial: bool = False,
) -> DetectionTable:
    """Detections from npz rows, COCO results JSON or the JSONL of ``tools/test.py --out``.

    Args:
        path: the file.
        truth: annotations that name the categories.
        uncapped: refuse a prediction file whose header and rows say that the detections of some
            image were cut together. Other formats do not tell.
        classless: labels need not be those of the annotations; they stand as categories.
        partial: accept a prediction file that lacks images.
    Raises:
        DataError: the file is none of these, its labels do not fit the annotations, its
            detections are cut where they must not be, or images are missing.
    """
    path = Path(path)
    if not is_prediction_file(path):
        is_table = path.suffix == ".npz"
        table = read_npz_detections(path) if is_table else read_coco_results(path)
        check_complete(path, table.image_ids.tolist(), truth.image_ids.tolist(), partial=partial)
        return table
    header, rows = read_predictions(path)
    predicted = [row.image_id for row in rows]
    check_complete(path, predicted, truth.image_ids.tolist(), partial=partial)
    if uncapped:
        check_uncapped(header, rows, str(path))
    categories = None if classless else header_categories(header, truth)
    return _concatenate([_table(row, categories, f"{path}: image {row.image_id}") for row in rows])


def check_uncapped(header: PredictionHeader, rows: Sequence[ImagePredictions], where: str) -> None:
    """Refuse rows that may lack detections because a limit per image cut them.

    A limit that no image reached cut nothing, whatever the number of prompts.

    Raises:
        DataError: an image has as many boxes as it may have.
    """
    limit = header.max_per_image
    if header.limit_per != "image" or limit is None:
        return
    full = [row.image_id for row in rows if len(row.boxes) >= limit]
    if full:
        raise DataError(
            f"{where}: {len(full)} images have {limit} boxes, the most that an image could have "
            f"(limit_per='image'), the first is {full[0]}; fixed AP needs all: predict again with "
            "model.test_cfg.limit_per='chunk'"
        )


def header_categories(header: PredictionHeader, truth: GroundTruth) -> np.ndarray:
    """Category id of each label [K]; those of the annotations if the header names no classes."""
    names = header.category_names or header.classes
    return labels_to_categories(names, truth) if names else truth.category_ids


def load_expression_boxes(
    path: str | Path, expressions: Sequence[Expression], *, partial: bool = False
) -> dict[int, ScoredBoxes]:
    """Scored boxes by expression id, from npz rows, COCO results or the JSONL of the test tool.

    Args:
        path: the file.
        expressions: the annotated ones.
        partial: accept a prediction file that lacks some.
    """
    path = Path(path)
    rows = rows_of(path)
    if rows is not None:
        chosen = [row.chosen() for row in rows]
        boxes = {r.image_id: ScoredBoxes(r.boxes.astype(np.float64), r.scores) for r in chosen}
    elif path.suffix == ".npz":
        boxes = read_expression_boxes(path)
    else:
        detections = read_coco_results(path)
        boxes = group_boxes(detections.image_ids, detections.xyxy(), detections.scores)
    wanted = [expression.id for expression in expressions]
    check_complete(path, boxes, wanted, partial=partial, what="expressions")
    return boxes


def load_phrase_boxes(
    sentences: Mapping[SentenceKey, Sequence[GroundedPhrase]],
    source: Source,
    *,
    partial: bool = False,
) -> Mapping[SentenceKey, Sequence[Any]]:
    """Boxes of each phrase, best first, from rows or MDETR's JSONL.

    Args:
        sentences: of MDETR's JSON where the source has rows, whose labels number the phrases.
        source: predictions.
        partial: accept a prediction file that lacks sentences.
    Raises:
        DataError: rows are to be judged by annotations that know other ids, or some are missing.
    """
    rows = rows_of(source)
    if rows is None:
        return read_flickr30k_predictions(_path(source))
    by_sentence = {(str(row.image_id), 0): row.chosen() for row in rows}
    if not by_sentence.keys() & sentences.keys():
        raise DataError(
            "no predicted sentence is among the annotated ones: a preds.jsonl is judged by the "
            "JSON of the data set that was tested (final_flickr_separateGT_*.json)"
        )
    if isinstance(source, Path):
        numbers = [int(image) for image, _ in sentences]
        predicted = [row.image_id for row in rows]
        check_complete(source, predicted, numbers, partial=partial, what="sentences")
    predictions = {}
    for key, row in by_sentence.items():
        order = np.argsort(-row.scores, kind="stable")
        predictions[key] = [
            row.boxes[order[row.labels[order] == phrase.label]] for phrase in sentences.get(key, ())
        ]
    return predictions


def load_captions(source: Source) -> dict[int, str]:
    """Caption by image id, from rows or a list of ``{image_id, caption}``.

    Raises:
        DataError: an image has two captions or a row has no text.
    """
    rows = rows_of(source)
    if rows is not None:
        return _by_id(rows, lambda row: _part(row, "text"))
    captions: dict[int, str] = {}
    for index, record in enumerate(read_json(_path(source))):
        image = require(record, "image_id", f"{source}[{index}]")
        if image in captions:
            raise DataError(f"{source}[{index}]: image {image} has a second caption")
        captions[image] = require(record, "caption", f"{source}[{index}]")
    return captions


def load_answers(source: Source) -> dict[Any, str]:
    """Answer by question id, from rows or lines of ``{question_id, answer}``."""
    rows = rows_of(source)
    if rows is not None:
        return _by_id(rows, lambda row: _part(row, "text"))
    return {
        require(record, "question_id", f"{source}:{number}"): str(
            require(record, "answer", f"{source}:{number}")
        )
        for number, record in read_jsonl(_path(source))
    }


def load_gcg(source: Source) -> dict[int, GCGPrediction]:
    """Caption, phrases and masks by image id, from rows or GLaMM's JSON."""
    rows = rows_of(source)
    if rows is None:
        return read_gcg_predictions(_path(source))
    return _by_id(
        rows,
        lambda row: GCGPrediction(
            caption=MaskGrammar().parse(_part(row, "text")).caption,
            phrases=list(_part(row, "phrases")),
            masks=[encode(mask, _name(row)) for mask in _part(row, "masks")],
        ),
    )


def load_res(
    truth: Sequence[Mapping[str, Any]], source: Source | None
) -> Sequence[Mapping[str, Any]]:
    """Images whose expressions have both masks.

    Args:
        truth: images with ``refs`` of ``gt``, and of ``pred`` if there is no source.
        source: rows with a mask per expression of the image, in the order of ``refs``.
    Raises:
        DataError: an image has no row, or another number of masks than of expressions.
    """
    if source is None:
        return truth
    rows = rows_of(source)
    if rows is None:
        raise DataError(f"{source} is no prediction file; without --pred GT holds both masks")
    masks = _by_id(rows, lambda row: _part(row, "masks"))
    images = []
    for image in truth:
        identity = require(dict(image), "image_id", "image")
        references = require(dict(image), "refs", f"image {identity}")
        predicted = masks.get(identity, ())
        if len(predicted) != len(references):
            raise DataError(
                f"image {identity} has {len(references)} expressions and {len(predicted)} "
                "predicted masks; a row of masks has one for each, an empty one for no answer"
            )
        pairs = zip(references, predicted, strict=True)
        images.append({**image, "refs": [{**ref, "pred": mask} for ref, mask in pairs]})
    return images


def load_humanref(source: Source) -> dict[int, list[Any]]:
    """Predicted boxes by record id, from rows or HumanRef's own lines.

    Of a row that names boxes by index these alone count.
    """
    rows = rows_of(source)
    if rows is None:
        return read_humanref_predictions(_path(source))
    return {row.image_id: [list(map(float, box)) for box in row.chosen().boxes] for row in rows}


def load_region_names(regions: Sequence[Mapping[str, Any]], source: Source) -> list[str]:
    """Name said of every region, from rows or a JSON list in the order of the regions.

    Args:
        regions: annotated regions with ``image_id``.
        source: rows with a phrase per region of the image, in the order of the annotations, or
            with a text where there is one region.
    Raises:
        DataError: an image has another number of phrases than of regions.
    """
    rows = rows_of(source)
    if rows is None:
        return list(map(name_in, read_json(_path(source))))
    said = {image: iter(names) for image, names in _names_of_regions(regions, rows).items()}
    return [name_in(next(said[region["image_id"]])) for region in regions]


def _names_of_regions(
    regions: Sequence[Mapping[str, Any]], rows: Sequence[ImagePredictions]
) -> dict[int, Sequence[str]]:
    counts: dict[int, int] = {}
    for index, region in enumerate(regions):
        image = require(dict(region), "image_id", f"regions[{index}]")
        counts[image] = counts.get(image, 0) + 1
    names: dict[int, Sequence[str]] = _by_id(rows, lambda row: row.phrases or (_part(row, "text"),))
    for image, count in counts.items():
        if len(names.get(image, ())) != count:
            raise DataError(
                f"image {image} has {count} regions and {len(names.get(image, ()))} phrases; "
                "a row has one phrase for each region, in the order of the annotations"
            )
    return names


def rows_of(source: Source) -> Sequence[ImagePredictions] | None:
    """The rows of a source ordered by image id; None for a file of another format."""
    if not isinstance(source, Path):
        return source
    return read_predictions(source)[1] if is_prediction_file(source) else None


def _path(source: Source) -> Path:
    assert isinstance(source, Path)
    return source


def _by_id(
    rows: Sequence[ImagePredictions], value: Callable[[ImagePredictions], Value]
) -> dict[int, Value]:
    return {row.image_id: value(row) for row in rows}


def _part(row: ImagePredictions, name: str) -> Any:
    value = getattr(row, name)
    if value is None:
        raise DataError(f"{_name(row)} has no {name}, which this metric judges")
    return value


def _name(row: ImagePredictions) -> str:
    return f"the prediction of image {row.image_id}"


def _table(row: ImagePredictions, categories: np.ndarray | None, where: str) -> DetectionTable:
    row = row.chosen()
    if categories is None:
        categories = np.arange(row.labels.max(initial=-1) + 1)
    if row.category_ids is not None:
        categories = np.asarray(row.category_ids, np.int64)
    if len(row.labels) and row.labels.max() >= len(categories):
        raise DataError(f"{where}: label {row.labels.max()} of {len(categories)} classes")
    images = np.full(len(row.labels), row.image_id, np.int64)
    return DetectionTable(images, categories[row.labels], row.boxes, row.scores)


def _concatenate(parts: list[DetectionTable]) -> DetectionTable:
    if not parts:
        return empty_detections()
    return DetectionTable(
        np.concatenate([part.image_ids for part in parts]),
        np.concatenate([part.category_ids for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
