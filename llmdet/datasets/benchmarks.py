"""Data sets of benchmarks: several sets as one, and images with label spaces of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import BaseDetDataset
from mmengine.dataset import BaseDataset, ConcatDataset

from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.errors import DataError
from llmdet.registry import DATASETS
from llmdet.utils.files import read_json, require
from llmdet.utils.inert_files import read_plain_pickle

Json = dict[str, Any]
#: How OmniLabel marks a description that is no name of a category.
OMNILABEL_DESCRIPTION = "object_description"


@DATASETS.register_module()
class BenchmarkSets(ConcatDataset):
    """Several data sets, each sample marked with the name of its set.

    Image ids may repeat between sets. `BenchmarkEvaluator` judges each set by its own metric.

    Args:
        sets: config of each data set by name.
        lazy_init: read no annotations yet.
    """

    def __init__(self, sets: Mapping[str, Mapping[str, Any]], lazy_init: bool = False) -> None:
        self.names = list(sets)
        # class names differ between sets, which mmengine would refuse in a plain concatenation
        self.datasets: list[BaseDataset] = [DATASETS.build(dict(sets[n])) for n in self.names]
        self._metainfo: Json = {}
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the annotations of all sets."""
        if self._fully_initialized:
            return
        for dataset in self.datasets:
            dataset.full_init()
        self.cumulative_sizes = self.cumsum(self.datasets)
        self._metainfo = {
            "sets": {
                name: {**dataset.metainfo, "size": len(dataset)}
                for name, dataset in zip(self.names, self.datasets, strict=True)
            }
        }
        self._fully_initialized = True

    def __getitem__(self, idx: int) -> Any:
        """One packed sample, with ``benchmark_set`` in its meta information."""
        if not self._fully_initialized:
            self.full_init()
        index, local = self._get_ori_dataset_idx(idx)
        sample = self.datasets[index][local]
        sample["data_samples"].set_metainfo({"benchmark_set": self.names[index]})
        return sample


@DATASETS.register_module()
class RenamedCocoDataset(CocoDataset):
    """COCO annotations whose category names are replaced, in the order of the file.

    For data sets whose own names say nothing ("CoW" for a mushroom). Takes CocoDataset's
    arguments; ``metainfo.classes`` are the new names, ``metainfo.category_names``, by which
    metrics find the categories, those of the file.
    """

    def _choose_classes(self, categories: Sequence[Json]) -> None:
        classes = self._metainfo.get("classes", ())
        if len(classes) != len(categories):
            raise DataError(
                f"{self.ann_file} has {len(categories)} categories, metainfo.classes renames "
                f"{len(classes)}"
            )
        self.cat_ids = [category["id"] for category in categories]
        self._metainfo["category_names"] = tuple(category["name"] for category in categories)


class LabelSpaceDataset(BaseDetDataset):
    """Images with a list of descriptions each.

    A sample carries img_path, img_id, height and width where known, text (its descriptions),
    custom_entities and category_ids (the id of each description).
    """

    METAINFO: dict[str, Any] = {"classes": ()}  # noqa: RUF012 mmengine reads it from the class

    def load_data_list(self) -> list[Json]:
        """All images with their descriptions."""
        content = read_json(self.ann_file)
        spaces = self.label_spaces(content)
        infos = []
        for image in require(content, "images", self.ann_file):
            where = f"{self.ann_file}: image {image.get('id')}"
            space = spaces.get(require(image, "id", where), [])
            name = require(image, "file_name", where)
            infos.append(
                {
                    "img_path": str(Path(self.data_prefix.get("img", ""), name)),
                    "img_id": image["id"],
                    "height": image.get("height", 0),
                    "width": image.get("width", 0),
                    "instances": [],
                    "text": tuple(text for _, text in space),
                    "category_ids": [identity for identity, _ in space],
                    "custom_entities": True,
                }
            )
        return infos

    def filter_data(self) -> list[Json]:
        """Images without any description have nothing to be detected and are left out."""
        return [info for info in self.data_list if info["text"]]

    @abstractmethod
    def label_spaces(self, content: Json) -> dict[int, list[tuple[int, str]]]:
        """Id and text of every description of each image id."""


@DATASETS.register_module()
class OVDEvalDataset(LabelSpaceDataset):
    """OVDEval: the label space of an image is its ``text`` and ``neg_text``."""

    def label_spaces(self, content: Json) -> dict[int, list[tuple[int, str]]]:
        """Descriptions by image id, each once, those of ``text`` first."""
        ids = {item["name"]: item["id"] for item in require(content, "categories", self.ann_file)}
        spaces = {}
        for image in content["images"]:
            where = f"{self.ann_file}: image {image['id']}"
            texts = [*require(image, "text", where), *image.get("neg_text", [])]
            unknown = [text for text in texts if text not in ids]
            if unknown:
                raise DataError(f"{where}: {unknown[0]!r} is the name of no category")
            spaces[image["id"]] = [(ids[text], text) for text in dict.fromkeys(texts)]
        return spaces


@DATASETS.register_module()
class OmniLabelDataset(LabelSpaceDataset):
    """OmniLabel: every description lists the images in whose label space it is.

    Args:
        categories: ask for the names of categories too, not for free-form descriptions alone.
    """

    def __init__(self, *args: Any, categories: bool = True, **kwargs: Any) -> None:
        self.categories = categories
        super().__init__(*args, **kwargs)

    def label_spaces(self, content: Json) -> dict[int, list[tuple[int, str]]]:
        """Descriptions by image id in the order of the file."""
        spaces: dict[int, list[tuple[int, str]]] = {}
        for description in require(content, "descriptions", self.ann_file):
            kind = (description.get("anno_info") or {}).get("type")
            if not self.categories and kind != OMNILABEL_DESCRIPTION:
                continue
            for image in require(description, "image_ids", f"{self.ann_file}: descriptions"):
                spaces.setdefault(image, []).append((description["id"], description["text"]))
        return spaces


@DATASETS.register_module()
class D3Dataset(LabelSpaceDataset):
    """D3: the label space of an image is the descriptions of its group (intra-scenario).

    ``data_prefix.anno`` is the folder of D3's ``images.pkl`` and ``groups.pkl``, of which only
    plain containers are read: a pickle that would run code is refused. Without it every image is
    asked for all descriptions (the inter-scenario setting).
    """

    def label_spaces(self, content: Json) -> dict[int, list[tuple[int, str]]]:
        """Descriptions by image id, ordered by id."""
        categories = require(content, "categories", self.ann_file)
        texts = {category["id"]: category["name"] for category in categories}
        everything = sorted(texts.items())
        folder = self.data_prefix.get("anno")
        if not folder:
            return {image["id"]: everything for image in content["images"]}
        images = read_plain_pickle(Path(folder, "images.pkl"))
        groups = read_plain_pickle(Path(folder, "groups.pkl"))
        spaces = {}
        for image in content["images"]:
            group = groups[images[image["id"]]["group_id"]]
            inner = sorted(set(group["inner_sent_id"]) & texts.keys())
            spaces[image["id"]] = [(identity, texts[identity]) for identity in inner]
        return spaces
