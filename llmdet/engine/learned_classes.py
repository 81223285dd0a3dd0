"""The classes of a run's training data as those that it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from llmdet.datasets.storage.reading import join, read_json_at
from llmdet.errors import ConfigError
from llmdet.prompts.parse import in_label_order
from llmdet.utils.config import leaf_datasets

#: Value of ``model.learned_classes`` that stands for the classes of the training data.
OF_TRAINING = "train_dataloader"


def name_learned_classes(config: Config) -> None:
    """Put the class names of the training data, in place, where the config asks for them.

    The config that a run writes beside its weights has the names.

    Raises:
        ConfigError: a data set has no list of classes.
        DataError: its file cannot be read.
    """
    model = config.get("model")
    if not isinstance(model, dict) or model.get("learned_classes") != OF_TRAINING:
        return
    loader = config.get("train_dataloader") or {}
    names: dict[str, None] = {}
    for dataset in leaf_datasets(loader.get("dataset") or {}):
        names.update(dict.fromkeys(_class_names(dataset)))
    model["learned_classes"] = list(names)


def _class_names(dataset: Mapping[str, Any]) -> list[str]:
    root, options = dataset.get("data_root") or "", dataset.get("backend_args")
    if classes := (dataset.get("metainfo") or {}).get("classes"):
        return [classes] if isinstance(classes, str) else list(classes)
    if dataset.get("label_map_file"):
        return in_label_order(read_json_at(join(root, dataset["label_map_file"]), options))
    if str(dataset.get("ann_file", "")).endswith(".json"):
        content = read_json_at(join(root, dataset["ann_file"]), options)
        if isinstance(content, Mapping) and content.get("categories"):
            return [category["name"] for category in content["categories"]]
    raise ConfigError(
        f"model.learned_classes={OF_TRAINING!r}: the data set {dataset.get('ann_file')!r} "
        "has no list of classes (COCO json, label_map_file or metainfo.classes); list the names in "
        "model.learned_classes"
    )
