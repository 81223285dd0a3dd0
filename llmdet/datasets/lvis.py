"""LVIS json as a data set, without lvis-api."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.registry import DATASETS


@DATASETS.register_module(name=["LVISV1Dataset", "LVISDataset"])
class LVISV1Dataset(CocoDataset):
    """LVIS v1: a COCO file whose images are named by ``coco_url`` and classes ordered by id.

    Class names are those of the file ("bow_(decorative_ribbons)"); the prompt cleans them. Which
    classes are exhaustively annotated in which image matters to the metric alone.
    """

    def _ordered_categories(self, categories: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(categories, key=lambda category: category["id"])

    def _file_name(self, image: dict[str, Any]) -> str:
        """Folder and name of the tail of the address: "val2017/000000397133.jpg"."""
        if "coco_url" in image:
            return urlsplit(image["coco_url"]).path.lstrip("/")
        return super()._file_name(image)
