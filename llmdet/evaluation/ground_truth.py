"""Box annotations in COCO and LVIS form as arrays."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.coco_file import CocoFile, check_ids
from llmdet.errors import DataError
from llmdet.evaluation.detections import DetectionTable
from llmdet.prompts.class_names import clean_class_name
from llmdet.utils.files import read_json, require
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

LISTED = 5  # classes that a message names
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent: bins of LVIS categories


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """G annotated boxes over I images and K categories."""

    image_ids: np.ndarray  # [I] int64, in file order
    category_ids: np.ndarray  # [K] int64, in file order
    category_names: tuple[str, ...]  # K names, in file order
    ids: np.ndarray  # [G] int64 annotation ids
    images: np.ndarray  # [G] int64 image id of each box
    categories: np.ndarray  # [G] int64 category id of each box
    boxes: np.ndarray  # [G, 4] float64 x, y, width, height
    areas: np.ndarray  # [G] float64 px^2, of the segmentation where the file says so
    crowd: np.ndarray  # [G] bool, COCO's iscrowd
    ignore: np.ndarray  # [G] bool, the optional field "ignore"

    def select(self, index: np.ndarray) -> "GroundTruth":
        """The same images and categories with only the named boxes."""
        fields = ("ids", "images", "categories", "boxes", "areas", "crowd", "ignore")
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in fields})


@dataclasses.dataclass(frozen=True)
class LVISGroundTruth:
    """LVIS annotations: boxes, and which categories of an image the annotators looked for."""

    boxes: GroundTruth
    negative: np.ndarray  # [X, 2] int64 (image id, category id): verified absent
    not_exhaustive: np.ndarray  # [Y, 2] int64 (image id, category id): not all are boxed
    frequencies: tuple[str, ...]  # K times r, c or f, in the order of boxes.category_ids


def read_coco(path: str | Path) -> GroundTruth:
    """A COCO annotation file (``.json`` or ``.json.gz``)."""
    return parse_coco(read_json(path), str(path))


def read_lvis(path: str | Path) -> LVISGroundTruth:
    """An LVIS annotation file, v0.5 or v1 (``.json`` or ``.json.gz``)."""
    return parse_lvis(read_json(path), str(path))


def parse_coco(data: Mapping[str, Any], where: str = "annotations") -> GroundTruth:
    """COCO's JSON as arrays.

    Boxes without ``area`` get width times height, without ``iscrowd`` count as single objects.

    Raises:
        DataError: a list or a field is missing, an id occurs twice, or an annotation names an
            image or a category that the file does not have.
    """
    file = CocoFile.parse(data, where)
    check_ids(file.annotations, "annotation", where)
    return GroundTruth(
        image_ids=file.numbers("images", "id"),
        category_ids=file.numbers("categories", "id"),
        category_names=tuple(str(category.get("name", "")) for category in file.categories),
        ids=file.numbers("annotations", "id"),
        images=file.numbers("annotations", "image_id"),
        categories=file.numbers("annotations", "category_id"),
        boxes=file.boxes,
        areas=_areas(file.annotations, file.boxes, where),
        crowd=np.asarray([bool(item.get("iscrowd", 0)) for item in file.annotations], bool),
        ignore=np.asarray([bool(item.get("ignore", 0)) for item in file.annotations], bool),
    )


def parse_lvis(data: Mapping[str, Any], where: str = "annotations") -> LVISGroundTruth:
    """LVIS's JSON as arrays.

    Raises:
        DataError: as `parse_coco`, the file is of COCO, or an image lacks ``neg_category_ids`` or
            ``not_exhaustive_category_ids``, or a category its ``frequency``.
    """
    boxes = parse_coco(data, where)
    frequencies = []
    if not any("frequency" in category for category in data["categories"]):
        raise DataError(
            f"{where}: no category has a frequency, so that these are no annotations of LVIS; for "
            "plain COCO annotations use the metric coco (in configs CocoMetric)"
        )
    for category in data["categories"]:
        frequency = require(category, "frequency", f"{where}: category {category['id']}")
        if frequency not in FREQUENCIES:
            raise DataError(
                f"{where}: category {category['id']} has frequency {frequency!r}, not r, c or f"
            )
        frequencies.append(frequency)
    return LVISGroundTruth(
        boxes=boxes,
        negative=_image_lists(data["images"], "neg_category_ids", where),
        not_exhaustive=_image_lists(data["images"], "not_exhaustive_category_ids", where),
        frequencies=tuple(frequencies),
    )


def check_images(detections: DetectionTable, truth: GroundTruth) -> None:
    """Refuse detections on images that the annotations do not have.

    Raises:
        DataError: it names the first such image id.
    """
    _check_known(detections.image_ids, truth.image_ids, "image_id", "predictions")


def labels_to_categories(names: Sequence[str], truth: GroundTruth) -> np.ndarray:
    """Category id of every class label of a data set: [K] int64.

    A label is the category of the same name, or of the same name after both are cleaned as for a
    prompt (``aerosol can`` is the file's ``aerosol_can``). Among several such categories
    (``bow_(weapon)`` and ``bow_(hair_bow)`` are both ``bow``) it is the one at the label's place.

    Args:
        names: of the labels.
        truth: annotations.
    Raises:
        DataError: a label has no category of its name, or no single one; lists all of these.
    """
    exact, cleaned = (_places(truth.category_names, key) for key in (str, clean_class_name))
    places, wrong = [], []
    for label, name in enumerate(names):
        found = exact.get(name) or cleaned.get(clean_class_name(name), [])
        if len(found) > 1 and label in found:
            found = [label]
        if len(found) == 1:
            places += found
        else:
            wrong.append(name)
    twice = [truth.category_names[place] for place, n in Counter(places).items() if n > 1]
    if not wrong and not twice:
        return truth.category_ids[np.asarray(places, np.int64)]
    named = ", ".join(_difference(name, truth.category_names) for name in wrong[:LISTED])
    named = named or f"several classes are the category {twice[0]!r}"
    raise DataError(
        f"the data set has {len(names)} classes, the annotations {len(truth.category_ids)} "
        f"categories; {len(wrong) or len(twice)} do not fit: {named}. Make metainfo.classes equal "
        "to the category names of ann_file"
    )


def _places(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(key(name), []).append(place)
    return places


def _difference(name: str, known: Sequence[str]) -> str:
    return f"{name!r} ({did_you_mean(name, known, otherwise='no category is like it')})"


def _areas(annotations: Sequence[Mapping[str, Any]], xywh: np.ndarray, where: str) -> np.ndarray:
    areas = xywh[:, 2] * xywh[:, 3]
    missing = 0
    for index, annotation in enumerate(annotations):
        if "area" in annotation:
            areas[index] = annotation["area"]
        else:
            missing += 1
    if missing:
        logger.warning("%s: %d boxes have no area; width times height is used", where, missing)
    return areas


def _image_lists(images: Sequence[Mapping[str, Any]], field: str, where: str) -> np.ndarray:
    pairs = []
    for image in images:
        for category in require(dict(image), field, f"{where}: image {image['id']}"):
            pairs.append((image["id"], category))
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def _check_known(values: np.ndarray, known: np.ndarray, field: str, where: str) -> None:
    unknown = ~np.isin(values, known)
    if unknown.any():
        index = int(np.flatnonzero(unknown)[0])
        raise DataError(
            f"{where}: {field} {values[index]} (row {index}) is not among the annotated ones; "
            "are predictions and annotations of the same split?"
        )
