"""Evaluation sets of models that find objects among candidate boxes, or name given ones.

An image is looked at once, however much is asked about it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from llmdet.datasets.candidate_files import Candidates, read_candidates
from llmdet.datasets.coco_file import CocoFile
from llmdet.datasets.fields import Fields
from llmdet.datasets.questions import Json, QuestionDataset
from llmdet.datasets.sample import Regions, Sought
from llmdet.datasets.storage.reading import join, read_json_at
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.class_names import clean_class_name
from llmdet.prompts.conversation import Conversation, Turn
from llmdet.prompts.object_questions import ASKED, DETECT, NAME, SEPARATOR
from llmdet.prompts.objects import object_mark, with_candidates
from llmdet.registry import DATASETS
from llmdet.utils.files import read_jsonl, require

logger = logging.getLogger(__name__)


class RetrievalDataset(QuestionDataset):
    """Pictures with candidate boxes, and what is to be found among them.

    A sample carries what one of :class:`QuestionDataset` does, a conversation for each question
    with the candidates in front, and sought (of each, what it asks for). Whose candidates they
    are, and how they were chosen, is handed to prediction files.

    Args:
        candidates: ``preds.jsonl`` of a test of a detector (``tools/test.py --out``), or COCO
            results; below ``data_root``.
        max_candidates: the best so many are offered; no more than the model has indices.
        score_threshold: candidates below it are not offered.
        scores: of the boxes that are found: "index", the probability of their index, or
            "candidate", what the detector gave them.
        question: with [OBJ] for what is asked for.
        **kwargs: of :class:`QuestionDataset`.
    """

    def __init__(
        self,
        *args: Any,
        candidates: str | None = None,
        data_root: str = "",
        max_candidates: int = 100,
        score_threshold: float = 0.0,
        scores: Literal["index", "candidate"] = "index",
        question: str = DETECT,
        **kwargs: Any,
    ) -> None:
        if ASKED not in question:
            raise ConfigError(
                f"question={question!r} has no {ASKED}, which stands for what to find"
            )
        if scores not in ("index", "candidate"):
            raise ConfigError(f"scores={scores!r} is unknown; use 'index' or 'candidate'")
        self.candidates = None if candidates is None else join(data_root, candidates)
        self.max_candidates, self.score_threshold = max_candidates, score_threshold
        self.scores, self.question = scores, question
        super().__init__(*args, data_root=data_root, **kwargs)

    def read_candidates(self, **asked_of: Any) -> Candidates:
        """The candidates of the file, which are said in the log and to prediction files."""
        if self.candidates is None:
            raise ConfigError(
                f"{type(self).__name__} needs candidates: a preds.jsonl of a detector's test on "
                "the same file, or COCO results"
            )
        found = read_candidates(self.candidates)
        self._describe(found.source, **asked_of)
        return found

    def _describe(self, source: Mapping[str, Any], **asked_of: Any) -> None:
        names = ("max_candidates", "score_threshold", "scores", "question")
        chosen = {**{name: getattr(self, name) for name in names}, **asked_of}
        self._metainfo["protocol"] = {"asked_of": chosen, "candidates": dict(source)}
        whose = source.get("model") or "a file"
        whose = (
            "as annotated, every answer among them" if source.get("annotated") else f"of {whose}"
        )
        logger.info("candidates %s: %s; %s", whose, source["file"], chosen)

    def offered(self, found: Candidates, identity: int) -> Regions:
        """The candidates of an image or expression."""
        scores = found.scores_of(identity, self.max_candidates)
        count = int((scores >= self.score_threshold).sum())
        boxes = found.of(identity, count)
        return Regions(boxes, scores=scores[:count] if self.scores == "candidate" else None)

    def find(
        self, identity: int, filename: str, regions: Regions, sought: Sequence[Sought]
    ) -> Json:
        """A sample that asks to find each of several things."""
        texts = [self.question.replace(ASKED, SEPARATOR.join(each.names)) for each in sought]
        asked = [Conversation((Turn("user", text),)) for text in texts]
        return {
            "img_id": identity,
            "filename": filename,
            "regions": regions,
            "conversations": tuple(with_candidates(each, len(regions)) for each in asked),
            "sought": tuple(sought),
        }


@DATASETS.register_module()
class HumanRefDataset(RetrievalDataset):
    """HumanRef: people by any words (RexSeek, arXiv 2503.08507); ids are those of expressions.

    Args:
        candidates: None for the annotated boxes of all people, as in the published figures of
            RexSeek: every answer is among them. Else a file by the expressions' ids.
        **kwargs: of :class:`RetrievalDataset`.
    """

    def questions(self) -> Iterator[Json]:
        """One for each line."""
        found = None
        if self.candidates is not None:
            found = self.read_candidates()
        elif self.scores == "candidate":
            raise ConfigError(
                "scores='candidate': annotated candidates have no scores; use 'index'"
            )
        else:
            self._describe({"file": Path(self.ann_file).name, "annotated": True})
        for number, values in read_jsonl(self.ann_file):
            record = Fields(values, f"{self.ann_file}:{number}")
            identity = record.get("id")
            regions = self._annotated(record) if found is None else self.offered(found, identity)
            sought = Sought((record.text("referring"),), (0,))
            yield self.find(identity, record.text("image_name"), regions, [sought])

    def _annotated(self, record: Fields) -> Regions:
        boxes = record.boxes("candidate_boxes") if record.array("candidate_boxes") else []
        if len(boxes) > self.max_candidates:
            raise record.fault(
                "candidate_boxes", f"holds {len(boxes)}, more than max_candidates can be offered"
            )
        return Regions(np.asarray(boxes, np.float32).reshape(-1, 4))


@DATASETS.register_module()
class ClassRetrievalDataset(RetrievalDataset):
    """COCO's or LVIS's objects in retrieval form: names are given, boxes are to be found.

    Args:
        names: which are asked for: "image", those that are annotated in it (the published
            figures of ChatRex, which are no figures of detection: what is absent is never asked
            for), or "all", every class of the file.
        several: ask for all names in one question; else each is a question of its own.
        **kwargs: of :class:`RetrievalDataset`; ``candidates`` are by the ids of images.
    """

    def __init__(
        self,
        *args: Any,
        names: Literal["image", "all"] = "image",
        several: bool = False,
        **kwargs: Any,
    ) -> None:
        if names not in ("image", "all"):
            raise ConfigError(f"names={names!r} is unknown; use 'image' or 'all'")
        self.names, self.several = names, several
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One sample for each image, without a question where nothing is annotated."""
        found = self.read_candidates(names=self.names, several=self.several)
        file = CocoFile.parse(read_json_at(self.ann_file, self.backend_args), self.ann_file)
        self._metainfo["classes"] = tuple(str(item["name"]) for item in file.categories)
        words = [clean_class_name(name) for name in self._metainfo["classes"]]
        labels = {item["id"]: label for label, item in enumerate(file.categories)}
        shown: dict[Any, set[int]] = defaultdict(set)
        for annotation in file.annotations:
            if not annotation.get("iscrowd"):
                shown[annotation["image_id"]].add(labels[annotation["category_id"]])
        for image in file.images:
            asked = sorted(shown[image["id"]]) if self.names == "image" else range(len(words))
            sought = [Sought((words[label],), (label,)) for label in asked]
            if self.several and sought:
                sought = [Sought(tuple(words[label] for label in asked), tuple(asked))]
            regions = self.offered(found, image["id"]) if sought else Regions()
            yield self.find(image["id"], file_name_of(image, self.ann_file), regions, sought)


@DATASETS.register_module()
class ExpressionRetrievalDataset(RetrievalDataset):
    """RefCOCO, RefCOCO+, RefCOCOg by finding what an expression means among candidates.

    Args:
        candidates_of: what ids of the candidates' file are: "expression", as of a test on this
            very file, or "image": the ``original_id`` of an expression's picture.
        **kwargs: of :class:`RetrievalDataset`; ``ann_file`` is in MDETR's form.
    """

    def __init__(
        self,
        *args: Any,
        candidates_of: Literal["expression", "image"] = "expression",
        **kwargs: Any,
    ) -> None:
        if candidates_of not in ("expression", "image"):
            raise ConfigError(
                f"candidates_of={candidates_of!r} is unknown; use 'expression' or 'image'"
            )
        self.candidates_of = candidates_of
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One for each expression, by its id."""
        found = self.read_candidates(candidates_of=self.candidates_of)
        field = "id" if self.candidates_of == "expression" else "original_id"
        content = read_json_at(self.ann_file, self.backend_args)
        for image in require(content, "images", self.ann_file):
            where = f"{self.ann_file}: image {image.get('id')}"
            regions = self.offered(found, require(image, field, where))
            sought = Sought((require(image, "caption", where),), (0,))
            name = require(image, "file_name", where)
            yield self.find(require(image, "id", where), name, regions, [sought])


@DATASETS.register_module()
class RegionNamingDataset(QuestionDataset):
    """What annotated objects of COCO's kind of file (LVIS, PACO) are, in any words.

    A sample is an image with a question for each object that is no crowd, in the order of the
    file; images without objects are left out.

    Args:
        question: with [OBJ] for the object.
        **kwargs: of :class:`QuestionDataset`.
    """

    def __init__(self, *args: Any, question: str = NAME, **kwargs: Any) -> None:
        if ASKED not in question:
            raise ConfigError(f"question={question!r} has no {ASKED}, which stands for the object")
        self.question = question
        super().__init__(*args, **kwargs)

    def questions(self) -> Iterator[Json]:
        """One sample for each image with objects."""
        self._metainfo["protocol"] = {"asked_of": {"regions": "boxes", "question": self.question}}
        file = CocoFile.parse(read_json_at(self.ann_file, self.backend_args), self.ann_file)
        boxes: dict[Any, list[list[float]]] = defaultdict(list)
        for annotation in file.annotations:
            if not annotation.get("iscrowd"):
                x, y, width, height = annotation["bbox"]
                boxes[annotation["image_id"]].append([x, y, x + width, y + height])
        text = self.question.replace(ASKED, object_mark(0))
        for image in file.images:
            owned = boxes.get(image["id"], [])
            # Each question shows its own object alone, as the first one: their number is no limit.
            asked = [f"<image>\n{object_mark(0)}<region:{n}>\n{text}" for n in range(len(owned))]
            if owned:
                yield {
                    "img_id": image["id"],
                    "filename": file_name_of(image, self.ann_file),
                    "regions": Regions(np.asarray(owned, np.float32)),
                    "conversations": tuple(Conversation((Turn("user", each),)) for each in asked),
                }


def file_name_of(image: Mapping[str, Any], where: str) -> str:
    """Name of an image's file; of LVIS and PACO, whose images are of several folders, of both.

    Raises:
        DataError: there is neither a name nor an address.
    """
    of_address = urlsplit(str(image.get("coco_url", ""))).path.lstrip("/")
    names = [image.get("file_name"), of_address]
    name = next(filter(None, reversed(names) if "neg_category_ids" in image else names), None)
    if not name:
        raise DataError(f"{where}: image {image['id']!r} has neither file_name nor coco_url")
    return str(name)
