"""Evaluation sets of models that answer in words: every sample is one question."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset

from llmdet.datasets.candidate_files import read_candidates
from llmdet.datasets.candidates import overlapping
from llmdet.datasets.coco_file import CocoFile
from llmdet.datasets.pictures import picture_roots
from llmdet.datasets.question_rows import read_questions
from llmdet.datasets.sample import Regions
from llmdet.datasets.storage.reading import join, read_json_at
from llmdet.datasets.stored import StoredData
from llmdet.datasets.views import window_around
from llmdet.errors import ConfigError, DataError, naming
from llmdet.prompts.conversation import Conversation, Turn, with_image
from llmdet.prompts.region_tasks import MARK, ask_of_regions
from llmdet.registry import DATASETS
from llmdet.utils.files import read_jsonl, require

logger = logging.getLogger(__name__)

Json = dict[str, Any]
_NO_TARGET = -1  # category of gRefCOCO's annotation of an expression that nothing answers to
#: Behind POPE's questions, as LLaVA asks them.
_ONE_WORD = "\nAnswer the question using a single word or phrase."
#: As conversations begin, and as those of rows do, whose marks are numbered.
_IMAGE_LINE, _FIRST_IMAGE_LINE = "<image>\n", "<image:0>\n"
_ENOUGH = 0.5  # overlap from which on a candidate is the true box


class QuestionDataset(StoredData, BaseDetDataset):
    """Pictures with one question each.

    A sample carries img_path, img_id (the id of the question, which predictions call image_id),
    regions (boxes and masks in pixels of the picture), conversations (one, which ends with the
    question) and, where only a part of the picture is to be seen, window (x1, y1, x2, y2).

    Args:
        picture_folders: further folders that file names may lead to.
        introduction: what shows the image in front of the first question, in place of the mark on
            a line of its own, for models that were taught so; GLaMM's is
            "The <image> provides an overview of the picture." and a line break.
        **kwargs: of mmdet's ``BaseDetDataset``.
    """

    METAINFO: dict[str, Any] = {"classes": ()}  # noqa: RUF012 mmengine reads it from the class

    def __init__(
        self,
        *args: Any,
        data_root: str = "",
        picture_folders: Sequence[str] = (),
        introduction: str = _IMAGE_LINE,
        test_mode: bool = True,
        **kwargs: Any,
    ) -> None:
        self.picture_roots = picture_roots(data_root, picture_folders)
        self.introduction = introduction
        super().__init__(*args, data_root=data_root, test_mode=test_mode, **kwargs)

    @abstractmethod
    def questions(self) -> Iterator[Json]:
        """The samples, with the picture's file name as ``filename`` instead of img_path."""

    def load_data_list(self) -> list[Json]:
        """All questions.

        Raises:
            DataError: the file has none, or a picture lies outside its folder.
        """
        self.open_shards()
        infos = []
        for info in self.questions():
            where = f"{self.ann_file}: question {info['img_id']}"
            path = self.picture_path(info.pop("filename"), where)
            info["conversations"] = tuple(map(self._introduced, info["conversations"]))
            infos.append({"img_path": path, "instances": [], **self.reading_options(), **info})
        if not infos:
            raise DataError(f"{self.ann_file}: there is nothing to ask about")
        if self.introduction != _IMAGE_LINE:
            asked_of = self._metainfo.setdefault("protocol", {}).setdefault("asked_of", {})
            asked_of["introduction"] = self.introduction
        return infos

    def _introduced(self, conversation: Conversation) -> Conversation:
        """With the introduction in the place of the line that shows the image."""
        turns = list(conversation.turns)
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        text = turns[first].text
        for line in (_IMAGE_LINE, _FIRST_IMAGE_LINE):
            if text.startswith(line) and self.introduction != _IMAGE_LINE:
                text = self.introduction + text.removeprefix(line)
        turns[first] = replace(turns[first], text=text)
        return replace(conversation, turns=tuple(turns))

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a question; what is wrong with it is named by its id."""
        info = self.get_data_info(idx)
        with naming(f"{self.ann_file}: question {info['img_id']}"):
            return self.pipeline(info)


def question_of(
    identity: int, filename: str, text: str, regions: Regions | None = None, **more: Any
) -> Json:
    """A sample of :meth:`QuestionDataset.questions`."""
    conversation = with_image(Conversation((Turn("user", text),)))
    asked = {"regions": regions or Regions(), "conversations": (conversation,)}
    return {"img_id": identity, "filename": filename, **asked, **more}


@DATASETS.register_module()
class RegionClassificationDataset(QuestionDataset):
    """What each annotated object of COCO instances is; the id of a question is its annotation's.

    Crowds are left out.

    Args:
        regions: "boxes", or "masks": the annotated segmentation, as SpatialRGPT's program has it.
        window: show the square around the object that is as high as the picture's shorter side
            (:func:`~llmdet.datasets.views.window_around`), as that program does.
        vocabulary: what the model was taught to call the classes.
        **kwargs: of :class:`QuestionDataset`.
    """

    def __init__(
        self,
        *args: Any,
        regions: str = "boxes",
        window: bool = False,
        vocabulary: str = "COCO-80",
        **kwargs: Any,
    ) -> None:
        if regions not in ("boxes", "masks"):
            raise ConfigError(f"regions={regions!r} is unknown; use 'boxes' or 'masks'")
        self.regions, self.window = regions, window
        self.question = ask_of_regions("classify", vocabulary=vocabulary)
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each object; class names are known afterwards."""
        file = CocoFile.parse(read_json_at(self.ann_file, self.backend_args), self.ann_file)
        self._metainfo["classes"] = tuple(str(item["name"]) for item in file.categories)
        self._metainfo["protocol"] = {"asked_of": {"regions": self.regions, "window": self.window}}
        images = {image["id"]: image for image in file.images}
        for annotation in file.annotations:
            if annotation.get("iscrowd"):
                continue
            image = images[annotation["image_id"]]
            box = xyxy(annotation["bbox"])
            mask = annotation.get("segmentation") or None if self.regions == "masks" else None
            array = np.asarray([box], np.float32)
            regions = Regions(array, None if mask is None else (mask,))
            size = image["height"], image["width"]
            more = {"window": window_around(box, size)} if self.window else {}
            name = require(image, "file_name", f"{self.ann_file}: image {image['id']}")
            yield question_of(annotation["id"], name, self.question, regions, **more)


@DATASETS.register_module()
class RegionChoiceDataset(QuestionDataset):
    """Which of several candidate boxes an expression means (REC by choice).

    Candidates are no ground truth, so that a report must say whose they are: their file, and the
    detector and weights that its header names, are handed to prediction files.

    Args:
        candidates: ``preds.jsonl`` of a test of our detector (``tools/test.py --out``), or COCO
            results; below ``data_root``.
        candidates_of: what ids of that file are: "expression", as of a test on this very file, or
            "image": the ``original_id`` of an expression's picture.
        max_candidates: the best so many are offered.
        add_truth: offer the true box too where no candidate overlaps it by half. The published
            figures do so; they are an oracle's, and not comparable to free localisation.
        seed: of the order of candidates; a detector's own would tell which it likes best.
        **kwargs: of :class:`QuestionDataset`; ``ann_file`` is RefCOCO's kind in MDETR's form.
    """

    def __init__(
        self,
        *args: Any,
        candidates: str,
        data_root: str = "",
        candidates_of: str = "expression",
        max_candidates: int = 20,
        add_truth: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if candidates_of not in ("expression", "image"):
            raise ConfigError(
                f"candidates_of={candidates_of!r} is unknown; use 'expression' or 'image'"
            )
        self.candidates, self.candidates_of = join(data_root, candidates), candidates_of
        self.max_candidates, self.add_truth = max_candidates, add_truth
        self.seed = seed
        super().__init__(*args, data_root=data_root, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each expression, by its id."""
        found = read_candidates(self.candidates)
        logger.info(
            "candidates: %s of %s, %d at most%s",
            found.source["file"],
            found.source.get("model") or "a file",
            self.max_candidates,
            "; the true box is added where none overlaps it by half, which is not comparable to "
            "free localisation"
            if self.add_truth
            else "",
        )
        names = ("candidates_of", "max_candidates", "add_truth")
        asked_of = {name: getattr(self, name) for name in names}
        self._metainfo["protocol"] = {"asked_of": asked_of, "candidates": dict(found.source)}
        content = read_json_at(self.ann_file, self.backend_args)
        truth: dict[Any, list[list[float]]] = defaultdict(list)
        for number, annotation in enumerate(require(content, "annotations", self.ann_file)):
            if annotation.get("category_id") != _NO_TARGET:
                box = require(annotation, "bbox", f"{self.ann_file}: annotations[{number}]")
                truth[annotation["image_id"]].append(xyxy(box))
        field = "id" if self.candidates_of == "expression" else "original_id"
        for image in require(content, "images", self.ann_file):
            where = f"{self.ann_file}: image {image.get('id')}"
            identity = require(image, "id", where)
            offered = found.of(require(image, field, where), self.max_candidates)
            boxes = self._offered(identity, offered, truth[identity])
            said = require(image, "caption", where)
            text = ask_of_regions("choose", [MARK] * len(boxes), text=said)
            yield question_of(identity, require(image, "file_name", where), text, Regions(boxes))

    def _offered(
        self, identity: int, found: np.ndarray, truth: Sequence[list[float]]
    ) -> np.ndarray:
        boxes = found.tolist()
        if self.add_truth:
            missed = ~overlapping(np.asarray(truth, np.float32).reshape(-1, 4), found, _ENOUGH)
            boxes += [box for box, is_missed in zip(truth, missed, strict=True) if is_missed]
        random.Random(f"{self.seed}:{identity}").shuffle(boxes)
        return np.asarray(boxes, np.float32).reshape(-1, 4)


@DATASETS.register_module()
class POPEDataset(QuestionDataset):
    """POPE: whether an object is in the picture; lines of ``{question_id, image, text, label}``.

    Args:
        suffix: behind each question.
        **kwargs: of :class:`QuestionDataset`.
    """

    def __init__(self, *args: Any, suffix: str = _ONE_WORD, **kwargs: Any) -> None:
        self.suffix = suffix
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each line."""
        for number, record in read_jsonl(self.ann_file):
            where = f"{self.ann_file}:{number}"
            identity, name, text = (
                require(record, field, where) for field in ("question_id", "image", "text")
            )
            yield question_of(identity, name, text + self.suffix)


@DATASETS.register_module()
class RowQuestionDataset(QuestionDataset):
    """What rows of conversations say, asked turn by turn; see docs/data.md for the rows.

    Args:
        history: show what the row says before a question; else each one stands alone.
        answers: "generated" by the model; or "given": those of the rows are shown, and masks are
            read off them. GLaMM's program evaluates referring expressions so, where a model
            that forgets to say that there is a mask is not punished.
        **kwargs: of :class:`QuestionDataset`; ``ann_file`` is JSONL.
    """

    def __init__(
        self, *args: Any, history: bool = False, answers: str = "generated", **kwargs: Any
    ) -> None:
        if answers not in ("generated", "given"):
            raise ConfigError(f"answers={answers!r} is unknown; use 'generated' or 'given'")
        self.history, self.answers = history, answers
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each turn of the assistant, by its number in the file."""
        asked_of = {"history": self.history, "answers": self.answers}
        self._metainfo["protocol"] = {"asked_of": asked_of}
        given = self.answers == "given"
        for asked in read_questions(self.ann_file, history=self.history):
            conversation = asked.conversation
            if given:
                answer = Turn("assistant", asked.answer, learned=True)
                conversation = replace(conversation, turns=(*conversation.turns, answer))
            yield {
                "img_id": asked.id,
                "filename": asked.row.filename,
                "regions": asked.regions,
                "conversations": (conversation,),
                **({"answers_given": True} if given else {}),
            }


def xyxy(box: Sequence[float]) -> list[float]:
    """x1, y1, x2, y2 of COCO's x, y, width, height."""
    x, y, width, height = box
    return [x, y, x + width, y + height]
