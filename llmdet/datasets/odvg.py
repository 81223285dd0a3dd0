"""Grounding JSONL (ODVG, GroundingCap-1M) as a data set that parses a row when it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import force_full_init

from llmdet.datasets.formats.rows import names_of_label_map
from llmdet.datasets.formats.samples import image_size
from llmdet.datasets.ledger import SharedLedger
from llmdet.datasets.pictures import picture_roots
from llmdet.datasets.refetching import RefetchingDataset
from llmdet.datasets.row_targets import (
    ROW_CAUSES,
    CaptionOptions,
    conversations,
    label_targets,
    pair_targets,
    phrase_targets,
)
from llmdet.datasets.rows import Row, read_row
from llmdet.datasets.storage.reading import join, read_json_at
from llmdet.datasets.storage.shards import TarRows
from llmdet.datasets.stored import StoredData, open_rows
from llmdet.errors import ConfigError, DataError, naming
from llmdet.registry import DATASETS

IMAGE_EMPTY = "image without boxes (filter_empty_gt)"
IMAGE_BACKGROUND = "all boxes of an image, which trains as background"
IMAGE_SMALL = "image smaller than min_size"


@DATASETS.register_module()
class ODVGDataset(StoredData, RefetchingDataset):
    """Object detection and visual grounding data with optional captions, one JSON row an image.

    Rows are in grounding form (a caption, phrases with character spans, boxes), in expression form
    (boxes with expressions that do and do not describe them, as Real-Data has them) or, with
    `label_map_file`, in detection form (boxes with labels); without one, rows may also have a
    conversation alone. docs/data.md has the schema. The file is indexed once and
    memory-mapped, so that start-up and memory do not grow with it; `dropped` counts what rows
    lose on the way. All arguments of mmdet's ``ODVGDataset`` are accepted, among them
    ``filter_cfg=dict(filter_empty_gt, min_size)``, which skips rows when they are met;
    `serialize_data` has nothing to do here.

    Args:
        label_map_file: json {"0": name, ...} below `data_root`; rows are in detection form.
        need_text: put the label map into the samples of detection form as `text`.
        actual_dataset_mode: where the boxes come from, handed on as `dataset_mode`: "VG" for
            captions with grounded phrases, "OD" for detection data, also where its class names
            have been written as a caption. None: "OD" with a label map, else "VG".
        use_short_cap: the short caption instead of the long one supervises the description, in
            data of mode "VG"; see :class:`CaptionOptions`.
        use_uniform_prompt: ask every image the same question; see :class:`CaptionOptions`.
        clean_caption: remove speculative clauses: True, False, or "upstream" for the original
            program's way; see :class:`CaptionOptions`.
        max_bad_rows: different rows that may be broken, or have a broken picture, over all workers
            and ranks together; they are skipped and counted while training.
        picture_folders: further folders that file names and symbolic links may lead to; without
            them pictures lie in the folder of `data_prefix` or in `data_root`.
        backend_args: how URLs are read: arguments of
            :class:`~llmdet.datasets.storage.objects.ObjectStore`.

    Raises:
        ConfigError: a mode or option is unknown.
        DataError: a file is missing or not what it should be; names file, line and field.
    """

    def __init__(
        self,
        *args: Any,
        data_root: str = "",
        label_map_file: str | None = None,
        need_text: bool = True,
        actual_dataset_mode: str | None = None,
        use_short_cap: bool = False,
        use_uniform_prompt: bool = True,
        clean_caption: bool | str = True,
        max_bad_rows: int = 0,
        picture_folders: Sequence[str] = (),
        backend_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if clean_caption not in (True, False, "upstream"):
            raise ConfigError(
                f"clean_caption={clean_caption!r} is unknown; use True, False or 'upstream'."
            )
        if actual_dataset_mode not in (None, "VG", "OD"):
            raise ConfigError(
                f"actual_dataset_mode={actual_dataset_mode!r} is unknown; use 'VG' or 'OD'."
            )
        self.label_map: dict[str, str] | None = None
        if label_map_file:
            path = join(data_root, label_map_file)
            names = names_of_label_map(read_json_at(path, backend_args), path)
            self.label_map = {str(label): name for label, name in enumerate(names)}
        self.dataset_mode = actual_dataset_mode or ("OD" if self.label_map else "VG")
        self.need_text = need_text
        self.caption_options = CaptionOptions(
            uniform_prompt=use_uniform_prompt,
            clean=clean_caption,
            short=use_short_cap and self.dataset_mode == "VG",
        )
        self.max_bad_rows = max_bad_rows
        self.picture_roots = picture_roots(data_root, picture_folders)
        self.dropped = SharedLedger(
            *ROW_CAUSES, IMAGE_EMPTY, IMAGE_BACKGROUND, IMAGE_SMALL, max_bad_rows=max_bad_rows
        )
        super().__init__(*args, data_root=data_root, backend_args=backend_args, **kwargs)
        # Given also without classes: mmdet's ConcatDataset wants the same keys in all its parts.
        self._metainfo.setdefault("classes", tuple((self.label_map or {}).values()))

    def full_init(self) -> None:
        """Open the index of the file; nothing is parsed."""
        if self._fully_initialized:
            return
        self._jsonl = open_rows(self.ann_file, self.backend_args, self.max_bad_rows)
        self.open_shards()
        if not len(self._jsonl):
            raise DataError(f"{self.ann_file}: the file has no row to learn from.")
        for location in self._jsonl.bad_locations:
            self.dropped.reject(DataError(f"{location}: not a JSON object"))
        self._rows: range | np.ndarray = range(len(self._jsonl))
        if self._indices is not None:
            self._rows = _select(self._rows, self._indices)
        self._fully_initialized = True

    @force_full_init
    def __len__(self) -> int:
        return len(self._rows)

    @property
    @force_full_init
    def aspect_ratios(self) -> np.ndarray:
        """[len(self)] float32 width / height of every image, read from the index."""
        ratios = self._jsonl.aspect_ratios
        if isinstance(self._rows, range):
            return ratios[self._rows.start : self._rows.stop]
        return ratios[self._rows]

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Parse a row.

        Returns:
            img_path, height, width, img_id, instances, dataset_mode, tags (list), conversations
            (tuple of ``Conversation``), regions (that they speak of), sample_idx, and proposals
            where the row has them; in grounding form text (the caption; not in a row that has a
            conversation alone) and phrases (number -> dict(phrase, tokens_positive)); in
            expression form expressions (tuple of ``ExpressionPair``, of which the label of a box
            is the number); in detection form text (the label map).

        Raises:
            DataError: the row is broken.
        """
        idx = range(len(self))[idx]
        index = int(self._rows[idx])
        classes = None if self.label_map is None else len(self.label_map)
        row = read_row(self._jsonl[index], self._jsonl.location(index), classes)
        self._check_form(row)
        path = self._picture(index, row)
        size = _size(row, path, self.backend_args)
        info: dict[str, Any] = {
            "img_path": path,
            "img_id": index if row.image_id is None else row.image_id,
            "height": size[1],
            "width": size[0],
            "dataset_mode": self.dataset_mode,
            "tags": row.tags or [],
            "conversations": conversations(row, self.caption_options, self.dropped),
            "regions": row.regions,
            "sample_idx": idx,
            **self.reading_options(),
        }
        if row.proposals is not None:
            info["proposals"] = row.proposals
        if row.pairs is not None:
            info["expressions"] = tuple(row.pairs)
            info["instances"] = pair_targets(row, size, self.dropped)
        elif self.label_map is None:
            instances, phrases = phrase_targets(row, size, self.dropped)
            info.update(instances=instances, phrases=phrases)
            if row.caption is not None:
                info["text"] = row.caption
        else:
            if self.need_text:
                info["text"] = self.label_map
            info["instances"] = label_targets(row, size, self.dropped)
        return info

    def _check_form(self, row: Row) -> None:
        other = "grounding" if row.pairs is None else "expression"
        spoken_of = row.caption is not None or row.pairs is not None
        if self.label_map is not None and row.boxes is None and spoken_of:
            raise DataError(
                f"{row.where}: field 'detection' is missing: the row is in {other} form, which "
                "the data set reads without label_map_file."
            )
        if self.label_map is None and not spoken_of:
            if row.boxes is not None:
                raise DataError(
                    f"{row.where}: field 'grounding' is missing: the row is in detection form, "
                    "which the data set reads with label_map_file."
                )
            if row.conversation is None:
                raise DataError(
                    f"{row.where}: field 'grounding' is missing, and there are no 'conversations' "
                    "either."
                )

    def _picture(self, index: int, row: Row) -> str:
        if isinstance(self._jsonl, TarRows):
            return f"{self._jsonl.folder(index)}/{row.filename}"
        return self.picture_path(row.filename, row.where)

    def prepare_data(self, idx: int) -> dict[str, Any] | None:
        """Run the pipeline on a row; None (fetch another) if it is filtered or may be skipped."""
        if self.test_mode:
            info = self.get_data_info(idx)
            with naming(self._where(idx)):
                return self.pipeline(info)
        try:
            return self._prepare_training(idx)
        except DataError as error:
            self.dropped.reject(error)
            return None

    def _prepare_training(self, idx: int) -> dict[str, Any] | None:
        info = self.get_data_info(idx)
        info["annotated_size"] = (info["width"], info["height"])
        filters = self.filter_cfg or {}
        if filters.get("filter_empty_gt", False) and not info["instances"]:
            self.dropped.note(IMAGE_EMPTY)
            return None
        if min(info["width"], info["height"]) < filters.get("min_size", 0):
            self.dropped.note(IMAGE_SMALL)
            return None
        if self.label_map is not None and not info["instances"]:
            self.dropped.note(IMAGE_BACKGROUND)
        with naming(self._where(idx)):
            return self.pipeline(info)

    def _where(self, idx: int) -> str:
        return self._jsonl.location(int(self._rows[idx]))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Parse every row into one list: for small files and tools, never used for training."""
        return [self.get_data_info(index) for index in range(len(self))]

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep only some rows: the first n, the last -n, or a list of them."""
        self.full_init()
        self._rows = _select(self._rows, indices)

    def get_subset(self, indices: Sequence[int] | int) -> ODVGDataset:
        """Make a data set of some rows that shares file and pipeline with this one."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset


def _size(row: Row, path: str, backend_args: Mapping[str, Any] | None) -> tuple[int, int]:
    """Width and height; those of the picture where a row without any box lacks them."""
    if row.width is not None and row.height is not None:
        return row.width, row.height
    if row.phrases or row.boxes or row.pairs or len(row.regions):
        missing = "width" if row.width is None else "height"
        raise DataError(f"{row.where}: field {missing!r} is missing.")
    return image_size(path, row.where, backend_args)


def _select(rows: range | np.ndarray, indices: Sequence[int] | int) -> range | np.ndarray:
    if isinstance(indices, int):
        return rows[:indices] if indices >= 0 else rows[indices:]
    return np.asarray(rows, dtype=np.int64)[np.asarray(indices, dtype=np.int64)]
