"""Evaluation sets of descriptions: of regions, and of pictures whose phrases have masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from llmdet.datasets.numbers import number_of_id
from llmdet.datasets.questions import Json, QuestionDataset, question_of, xyxy
from llmdet.datasets.sample import Regions
from llmdet.datasets.storage.reading import read_json_at
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.mask_tasks import GCG_QUESTION, LEGACY_GCG_QUESTION
from llmdet.prompts.region_tasks import ask_of_regions
from llmdet.registry import DATASETS
from llmdet.utils.files import require


@DATASETS.register_module()
class RegionCaptionDataset(QuestionDataset):
    """A description of each region of a caption file in COCO's form.

    The file has an "image" for each region, whose annotations all have its box (``bbox`` x, y,
    width, height) and one caption each, as GLaMM's files of RefCOCOg and Visual Genome.

    Args:
        task: "refer" or "caption", as the model was taught to describe such regions.
        question: with ``<region>``, for models that were taught another.
        **kwargs: of :class:`QuestionDataset`.
    """

    def __init__(
        self, *args: Any, task: str = "refer", question: str | None = None, **kwargs: Any
    ) -> None:
        if task not in ("refer", "caption"):
            raise ConfigError(f"task={task!r} describes no region; use 'refer' or 'caption'")
        self.question = ask_of_regions(task) if question is None else question
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each region; the id of a question is that of its image."""
        self._metainfo["protocol"] = {"asked_of": {"question": self.question}}
        content = read_json_at(self.ann_file, self.backend_args)
        boxes: dict[Any, list[float]] = {}
        for number, annotation in enumerate(require(content, "annotations", self.ann_file)):
            where = f"{self.ann_file}: annotations[{number}]"
            box = xyxy(require(annotation, "bbox", where))
            image = require(annotation, "image_id", where)
            if boxes.setdefault(image, box) != box:
                raise DataError(
                    f"{where} has another box than those before it of image {image}: a file of "
                    "region captions has an image entry, with an id of its own, for every region"
                )
        for image in require(content, "images", self.ann_file):
            where = f"{self.ann_file}: image {image.get('id')}"
            identity = require(image, "id", where)
            if identity not in boxes:
                raise DataError(f"{where} has no annotation, and so no region")
            regions = Regions(np.asarray([boxes[identity]], np.float32))
            yield question_of(identity, require(image, "file_name", where), self.question, regions)


@DATASETS.register_module()
class GroundedCaptionDataset(QuestionDataset):
    """A caption with masks of each picture of GLaMM's grounded conversations (GCG).

    Args:
        question: for models that were taught another.
        legacy_prompt: ask with GLaMM's run of blanks in the question, which changes its tokens.
        picture: name of a picture by its id, where the file does not say it.
        **kwargs: of :class:`QuestionDataset`; ``ann_file`` is ``*_gcg_coco_caption_gt.json``.
    """

    def __init__(
        self,
        *args: Any,
        question: str | None = None,
        legacy_prompt: bool = False,
        picture: str = "{id}.jpg",
        **kwargs: Any,
    ) -> None:
        default = LEGACY_GCG_QUESTION if legacy_prompt else GCG_QUESTION
        self.question, self.picture = default if question is None else question, picture
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each picture; its id is the number that the picture's ends with."""
        self._metainfo["protocol"] = {"asked_of": {"question": self.question}}
        content = read_json_at(self.ann_file, self.backend_args)
        for number, image in enumerate(require(content, "images", self.ann_file)):
            where = f"{self.ann_file}: images[{number}]"
            identity = require(image, "id", where)
            name = image.get("file_name") or self.picture.format(id=identity)
            yield question_of(number_of_id(identity, where), name, self.question)
