"""Class names of well-known data sets, and those that a config was written for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdet.errors import ConfigError, DataError
from llmdet.utils.config import leaf_datasets
from llmdet.utils.files import read_text

#: Name -> the class in mmdet.datasets whose METAINFO lists the classes.
_DATASETS = {
    "ade20k": "ADE20KInstanceDataset",
    "cityscapes": "CityscapesDataset",
    "coco": "CocoDataset",
    "coco_panoptic": "CocoPanopticDataset",
    "crowdhuman": "CrowdHumanDataset",
    "deepfashion": "DeepFashionDataset",
    "isaid": "iSAIDDataset",
    "lvis": "LVISV1Dataset",
    "lvis_v05": "LVISV05Dataset",
    "objects365v1": "Objects365V1Dataset",
    "objects365v2": "Objects365V2Dataset",
    "voc": "VOCDataset",
    "wider_face": "WIDERFaceDataset",
}
#: Name -> what mmdet.evaluation.get_classes calls it.
_LISTS = {
    "imagenet_det": "imagenet_det",
    "imagenet_vid": "imagenet_vid",
    "openimages": "oid_v6",
    "openimages_challenge": "oid_challenge",
}
_V3DET_FILE = Path("data/v3det/annotations/category_name_13204_v3det_2023_v1.txt")
_ALIASES = {
    "citys": "cityscapes",
    "mscoco": "coco",
    "lvis_v1": "lvis",
    "obj365v1": "objects365v1",
    "obj365v2": "objects365v2",
    "objects365": "objects365v2",
    "oid_v6": "openimages",
    "oid_challenge": "openimages_challenge",
    "openimages_v6": "openimages",
    "pascal_voc": "voc",
}


def known_datasets() -> tuple[str, ...]:
    """Return the names that ``$: NAME`` accepts, without their aliases."""
    return tuple(sorted([*_DATASETS, *_LISTS, "v3det"]))


def dataset_class_names(name: str) -> tuple[str, ...]:
    """Return the class names of a data set, in the order of its label ids.

    Args:
        name: One of :func:`known_datasets`, or an alias; upper and lower case are the same.

    Raises:
        ConfigError: No data set is known under this name.
        DataError: V3Det's list of names is not where its annotations belong.
    """
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if key in _DATASETS:
        from mmdet import datasets

        return tuple(getattr(datasets, _DATASETS[key]).METAINFO["classes"])
    if key in _LISTS:
        from mmdet.evaluation import get_classes

        return tuple(get_classes(_LISTS[key]))
    if key == "v3det":
        return _read_names(_V3DET_FILE)
    raise ConfigError(
        f"No class names are known for the data set {name.strip()!r}: choose one of "
        f"{', '.join(known_datasets())}, or write the classes as 'cat . dog'."
    )


def config_class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names of the data set that a config is tested on.

    They are the data set's ``metainfo.classes``, or else those that its class stands for, or
    else the categories of its annotation file. Several data sets must agree on them.

    Raises:
        ConfigError: The config names no classes, and its annotations, where there are any,
            have none or are not here; or its data sets have different classes.
    """
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    found = {_classes_of(leaf) for leaf in leaf_datasets(dataset)}
    remedy = "say what to find (--text 'cat . dog' -c, or texts= in Python)."
    if len(found) > 1:
        raise ConfigError(
            "No text was given, and the data sets that the config is tested on have different "
            f"classes: {remedy}"
        )
    (classes,) = found
    if not classes:
        annotations = sorted({str(_annotations(leaf)) for leaf in leaf_datasets(dataset)} - {"."})
        where = f" (its annotations would be {annotations[0]})" if annotations else ""
        raise ConfigError(
            "No text was given, and the data set that the config is tested on names no classes"
            f"{where}: {remedy}"
        )
    return classes


def _classes_of(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names of one data set's config, () where they are not known."""
    classes = (dataset.get("metainfo") or {}).get("classes") or _type_classes(dataset.get("type"))
    annotations = _annotations(dataset)
    if not classes and annotations.is_file() and annotations.suffix == ".json":
        classes = _category_names(annotations)
    return (classes,) if isinstance(classes, str) else tuple(classes or ())


def _annotations(dataset: Mapping[str, Any]) -> Path:
    return Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")


def _type_classes(kind: str | type | None) -> tuple[str, ...] | None:
    from llmdet.registry import DATASETS

    if isinstance(kind, str) and kind.rpartition(".")[2] == _DATASETS["lvis"]:
        return dataset_class_names("lvis")
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    return getattr(cls, "METAINFO", {}).get("classes")


def _category_names(path: Path) -> tuple[str, ...]:
    """Return the category names of a COCO file, in the order of its labels."""
    import orjson

    try:
        content = orjson.loads(path.read_bytes())
        return tuple(category["name"] for category in content["categories"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ()  # another format, which has no categories


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = read_text(path).splitlines()
    except DataError as error:
        raise DataError(
            f"V3Det's class names are read from {path}, a file of its annotations: {error}"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
