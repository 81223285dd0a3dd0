"""COCO json as a data set whose class names may come from the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import force_full_init

from llmdet.datasets.coco_file import CocoFile
from llmdet.datasets.fields import Fields
from llmdet.datasets.ledger import SharedLedger
from llmdet.datasets.pictures import picture_roots
from llmdet.datasets.refetching import RefetchingDataset
from llmdet.datasets.row_targets import BOX_INVERTED, BOX_OUTSIDE, BOX_TINY
from llmdet.datasets.storage.objects import is_url
from llmdet.datasets.storage.reading import join, read_json_at
from llmdet.datasets.storage.shards import is_shards
from llmdet.datasets.stored import StoredData
from llmdet.errors import ConfigError, DataError, naming
from llmdet.registry import DATASETS
from llmdet.utils.suggest import did_you_mean

BOX_UNLISTED = "box of a class that is not in metainfo.classes"
IMAGE_EMPTY = "image without boxes (filter_empty_gt)"
IMAGE_SMALL = "image smaller than min_size"

Json = dict[str, Any]


@DATASETS.register_module()
class CocoDataset(StoredData, RefetchingDataset):
    """Detection data in COCO format; takes the arguments of mmdet's ``CocoDataset``.

    Without ``metainfo=dict(classes=...)`` the classes are the categories of the file in its
    order. With it, label i is the category *named* classes[i], whatever its place and id in the
    file. Category ids may start anywhere and have holes. `dropped` counts the boxes that are left
    out; boxes with ``iscrowd`` or ``ignore`` are kept with ``ignore_flag`` 1.

    Samples carry img_path, img_id, height, width, instances (bbox xyxy, bbox_label, ignore_flag)
    and, with ``return_classes=True``, text (the class names), custom_entities and caption_prompt.

    Args:
        max_bad_rows: different images that may have a broken picture, over all workers and ranks
            together; they are skipped and counted while training.
        picture_folders: further folders that file names and symbolic links may lead to; without
            them pictures lie in the folder of `data_prefix` or in `data_root`.

    Attributes:
        cat_ids: category id of each label.
        dropped: what was left out, by cause.

    Raises:
        ConfigError: a class of `metainfo` is not in the file; names its nearest match.
        DataError: the file is missing, is no COCO json, or contradicts itself.
    """

    METAINFO: dict[str, Any] = {}  # noqa: RUF012 mmengine reads it from the class
    serialize_data: bool

    def __init__(
        self,
        *args: Any,
        data_root: str | None = "",
        max_bad_rows: int = 0,
        picture_folders: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.cat_ids: list[int] = []
        causes = (BOX_INVERTED, BOX_OUTSIDE, BOX_TINY, BOX_UNLISTED, IMAGE_EMPTY, IMAGE_SMALL)
        self.max_bad_rows = max_bad_rows
        self.dropped = SharedLedger(*causes, max_bad_rows=max_bad_rows, replicated=True)
        self.picture_roots = picture_roots(data_root, picture_folders)
        super().__init__(*args, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[Json]:
        """Read the file; class names are known afterwards."""
        self.open_shards()
        content = read_json_at(self.ann_file, self.backend_args)
        file = CocoFile.parse(content, self.ann_file)
        self._check_fields(file)
        self._choose_classes(self._ordered_categories(file.categories))
        labels = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}
        instances: dict[Any, list[Json]] = defaultdict(list)
        sizes = {image["id"]: (image["width"], image["height"]) for image in file.images}
        for annotation in file.annotations:
            instance = self._instance(annotation, labels, sizes[annotation["image_id"]])
            if instance is not None:
                instances[annotation["image_id"]].append(instance)
        return [self._data_info(image, instances[image["id"]]) for image in file.images]

    def _check_fields(self, file: CocoFile) -> None:
        for number, category in enumerate(file.categories):
            fields = Fields(category, self.ann_file, f"categories[{number}]")
            if not fields.text("name").strip():
                raise fields.fault("name", "is empty; a class needs words to be prompted with")
        for number, image in enumerate(file.images):
            fields = Fields(image, self.ann_file, f"images[{number}]")
            fields.size("width")
            fields.size("height")
            if "file_name" in fields:
                fields.text("file_name")

    def _ordered_categories(self, categories: Sequence[Json]) -> Sequence[Json]:
        return categories

    def _choose_classes(self, categories: Sequence[Json]) -> None:
        """Set the class names and the category id of each label."""
        ids = {category["name"]: category["id"] for category in categories}
        if len(ids) != len(categories):
            names = [category["name"] for category in categories]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{self.ann_file}: the category name {twice!r} appears twice.")
        classes = self._metainfo.get("classes")
        if classes is None:
            classes = tuple(ids)
            self._metainfo["classes"] = classes
        for name in classes:
            if name not in ids:
                raise ConfigError(
                    f"metainfo.classes: {self.ann_file} has no category {name!r}; "
                    f"{did_you_mean(name, ids)}"
                )
        self.cat_ids = [ids[name] for name in classes]

    def _instance(
        self, annotation: Json, labels: Mapping[int, int], size: tuple[int, int]
    ) -> Json | None:
        label = labels.get(annotation["category_id"])
        x, y, width, height = annotation["bbox"]
        if label is None:
            self.dropped.note(BOX_UNLISTED)
            return None
        if width < 0 or height < 0:
            self.dropped.note(BOX_INVERTED)
            return None
        if min(x + width, size[0]) <= max(x, 0) or min(y + height, size[1]) <= max(y, 0):
            self.dropped.note(BOX_OUTSIDE)
            return None
        if width < 1 or height < 1:
            self.dropped.note(BOX_TINY)
            return None
        return {
            "bbox": [x, y, x + width, y + height],
            "bbox_label": label,
            "ignore_flag": int(bool(annotation.get("iscrowd") or annotation.get("ignore"))),
        }

    def _data_info(self, image: Json, instances: list[Json]) -> Json:
        return {
            "img_path": self._image_path(image),
            **self.reading_options(),
            "img_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "instances": instances,
        }

    def _image_path(self, image: Json) -> str:
        name, where = self._file_name(image), f"{self.ann_file}: image {image['id']!r}"
        if is_shards(self.image_prefix):
            return self.picture_path(name, where)
        if is_url(self.image_prefix):
            return join(self.image_prefix, name)
        return str(Path(self.image_prefix, name))

    def _file_name(self, image: Json) -> str:
        try:
            return image["file_name"]
        except KeyError:
            raise DataError(
                f"{self.ann_file}: image {image['id']!r}: field 'file_name' is missing."
            ) from None

    def prepare_data(self, idx: int) -> Json | None:
        """Run the pipeline on an image; None (fetch another) if it is filtered or may be skipped.

        Raises:
            DataError: the picture is broken or lies outside its folder; names file and image.
        """
        info = self.get_data_info(idx)
        if not self.test_mode:
            info["annotated_size"] = (info["width"], info["height"])
        where = f"{self.ann_file}: image {info['img_id']!r}"
        try:
            self.check_picture_place(info["img_path"], where)
            with naming(where):
                return self.pipeline(info)
        except DataError as error:
            if self.test_mode:
                raise
            self.dropped.reject(error)
            return None

    def filter_data(self) -> list[Json]:
        """Apply ``filter_cfg=dict(filter_empty_gt, min_size)`` while training."""
        filters = self.filter_cfg or {}
        kept = self.data_list
        if self.test_mode or not filters:
            return kept
        if filters.get("filter_empty_gt", False):
            before = len(kept)
            kept = [info for info in kept if info["instances"]]
            self.dropped.note(IMAGE_EMPTY, number=before - len(kept))
        before = len(kept)
        smallest = filters.get("min_size", 0)
        kept = [info for info in kept if min(info["width"], info["height"]) >= smallest]
        self.dropped.note(IMAGE_SMALL, number=before - len(kept))
        return kept

    def full_init(self) -> None:
        """Read the file and note the aspect ratios, which batches are grouped by."""
        if self._fully_initialized:
            return
        keep_serialized, self.serialize_data = self.serialize_data, False
        super().full_init()
        if not self.data_list:
            raise DataError(f"{self.ann_file}: there is no image to look at{self.left_out()}")
        if not self.test_mode and not any(info["instances"] for info in self.data_list):
            raise DataError(
                f"{self.ann_file}: there is no box to learn from in {len(self.data_list):,} "
                f"image(s){self.left_out()}; is it the file of the training set?"
            )
        self._aspect_ratios = np.array(
            [info["width"] / info["height"] for info in self.data_list], np.float32
        )
        self.serialize_data = keep_serialized
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()

    @property
    @force_full_init
    def aspect_ratios(self) -> np.ndarray:
        """[len(self)] float32 width / height of every image."""
        return self._aspect_ratios

    def get_data_info(self, idx: int) -> Json:
        """One image with its boxes, as listed in the class's docstring."""
        info = super().get_data_info(idx)
        if self.return_classes:
            # Added here and not stored: 1,203 names beside each of 100,000 images are gigabytes.
            info["text"] = self._metainfo["classes"]
            info["custom_entities"] = True
            info["caption_prompt"] = self.caption_prompt
        return info
